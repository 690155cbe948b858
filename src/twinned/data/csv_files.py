"""Read CSV files: rows by column name, with the line numbers of errors."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ..errors import DataError, some
from .images import open_known

IMAGE_COLUMNS, PAIR_COLUMNS = (
    ("path", "label", "split", "group", "role"),
    ("left", "right", "same", "relation"),
)
_TAR, _TAR_AT = b"ustar", 257
Row: TypeAlias = tuple[int, dict[str, str]]  # number of the first line, values by column name
# A value of a CSV: quoted (and the text after the closing quote), or bare.
_VALUE = re.compile(r'(?P<quoted>"[^"]*(?:""[^"]*)*(?P<closed>"?))?(?P<rest>[^,\r\n]*)')
_BREAK = re.compile(r"\r\n|\r|\n")
# First bytes of ZIP, gzip, bzip2, xz, 7z, RAR and Zstandard; a tar archive has its own at byte 257.
_ARCHIVES = (
    b"PK\3\4",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\7",
    b"\x28\xb5\x2f\xfd",
)
_WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """Return the column names, and each row with the number of its first line."""
    try:
        if path.is_file():  # a pipe can be read only once
            _refuse_other_files(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            records = _records(path, file)
            header = _header(next(records, (1, []))[1])
            rows = []
            for line, values in records:
                if not any(value.strip() for value in values):
                    continue  # a spreadsheet leaves rows of commas behind
                if len(values) > len(header):
                    raise DataError(f"{path}, line {line}: more values than column names")
                rows.append((line, dict(itertools.zip_longest(header, values, fillvalue=""))))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: Not a CSV in UTF-8 ({error}). Expected a folder of class folders or a CSV."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: The file cannot be read ({error.strerror}).") from None
    if len(header) == 1 and ";" in header[0]:
        raise DataError(f"{path}: Columns are separated by semicolons. Save the file with commas.")
    return header, rows


def _header(names: Iterable[str]) -> list[str]:
    """Return column names without surrounding spaces, and known names in lower case."""
    known = {*IMAGE_COLUMNS, *PAIR_COLUMNS}
    return [low if (low := name.strip().lower()) in known else name.strip() for name in names]


def _records(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of a CSV with the number of its first line; empty lines are skipped."""
    taken: list[str] = []  # lines of the current record
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        for text in file:
            taken.append(text)
            yield text
        ended = True  # the reader asks for a line after the last one only inside a quote

    reader = csv.reader(lines())
    header: list[str] = []
    first = 1
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            _check_quotes(path, header, first, "".join(taken))
            raise DataError(f"{path}, line {first}: not a row of a CSV ({error})") from None
        if values is None:
            return
        if ended or len(taken) > 1:
            _check_quotes(path, header, first, "".join(taken))
        header = header or _header(values)
        if values:
            yield first, values
        first += len(taken)
        taken.clear()


def _check_quotes(path: Path, header: Sequence[str], first: int, record: str) -> None:
    """Check that the quotes of a record, which starts in line ``first``, do not span several rows."""
    place = 0
    for column in itertools.count():
        value = _VALUE.match(record, place)
        if value is None:
            return
        quoted, closed, rest = value["quoted"], value["closed"], value["rest"]
        line = first + len(_BREAK.findall(record[:place]))
        if quoted is not None and not closed:
            raise DataError(
                f'{path}, line {line}: A quote (") opens here and is not closed. Close it, or remove it.'
            )
        if quoted is not None and _BREAK.search(quoted):
            name = header[column] if column < len(header) else ""
            if rest.strip() or not header or name in (*IMAGE_COLUMNS, *PAIR_COLUMNS):
                raise DataError(
                    f'{path}, line {line}: A quote (") opens here and is closed on another line. Close it on'
                    f" line {line}, or remove it: {name or 'a value'} must be one line of text."
                )
        place = value.end() + 1
        if record[value.end() : place] != ",":
            return


def _refuse_other_files(path: Path) -> None:
    """Check that a file is not an archive, a workbook or an image."""
    if path.suffix.lower() in _WORKBOOKS:
        raise DataError(f"{path}: This is a workbook. Save the sheet as CSV (UTF-8).")
    with path.open("rb") as file:
        head = file.read(_TAR_AT + len(_TAR))
    if head.startswith(_ARCHIVES) or head[_TAR_AT:] == _TAR:
        raise DataError(f"{path}: This is an archive. Extract it, and give the folder or CSV inside.")
    try:
        with open_known(path) as image:
            kind = image.format
    except Exception:  # Pillow raises many kinds of errors on other files
        return
    raise DataError(f"{path}: expected a folder of class folders or a CSV; got an image ({kind})")


def check_label(where: str, label: str) -> None:
    """Check that a label is one line, which the service requires.

    Raises:
        DataError: If it has a line break.
    """
    if label.splitlines() not in ([label], []):
        raise DataError(f"{where}: the label {label!r} has a line break; it must be one line of text")


def ignored_columns(path: Path, header: list[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return a note on ignored columns, or (); it reveals misspelled names."""
    others = [name for name in header if name and name not in known]
    if not others:
        return ()
    return (f"{path}: ignored columns: {some(others)}; known columns: {','.join(known)}",)
