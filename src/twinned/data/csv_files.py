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

IMAGE_COLUMNS = ("path", "label", "split", "group", "role")
PAIR_COLUMNS = ("left", "right", "same", "relation")
_KNOWN = {*IMAGE_COLUMNS, *PAIR_COLUMNS}
Row: TypeAlias = tuple[int, dict[str, str]]  # number of the first line, values by column name
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
_TAR, _TAR_AT = b"ustar", 257
_WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """Return the column names, and each row with the number of its first line, without surrounding spaces."""
    try:
        if path.is_file():  # a pipe can be read only once
            _refuse_other_files(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            records = _records(path, file)
            header = _header(next(records, (1, []))[1])
            rows = []
            for line, values in records:
                values = [value.strip() for value in values]
                if not any(values):
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
    return [low if (low := name.strip().lower()) in _KNOWN else name.strip() for name in names]


def _records(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of a CSV with the number of its first line; empty lines are skipped."""
    lines = [*file, "\n"]  # a quote that is open at the end takes this line, too
    reader = csv.reader(lines)
    header: list[str] = []
    while (start := reader.line_num) < len(lines):
        line = None
        try:
            values = next(reader)
            if reader.line_num > start + 1:
                line = _open_quote(header, values, "".join(lines[start : reader.line_num]))
        except csv.Error as error:  # a value is too long
            if reader.line_num == start + 1:
                raise DataError(f"{path}, line {start + 1}: not a row of a CSV ({error})") from None
            line = 1
        if line is not None:
            raise DataError(
                f'{path}, line {start + line}: A quote (") opens here and is not closed on this line. Close'
                " or remove it."
            )
        header = header or _header(values)
        if values:
            yield start + 1, values


def _open_quote(header: list[str], values: list[str], record: str) -> int | None:
    """Return the line of a record, from 1, where a quote opens that should close on that line; else None.

    Only a quoted value of an unknown column may have line breaks.
    """
    line = 1
    for name, value in itertools.zip_longest(header[: len(values)], values, fillvalue=""):
        if breaks := len(_BREAK.findall(value)):
            quoted = value.rstrip(" \t").replace('"', '""')
            if not header or name in _KNOWN or f'"{quoted}"' not in record:
                return line
            line += breaks
    return None


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
    """Check that a label is one line, which the service requires."""
    if label.splitlines() not in ([label], []):
        raise DataError(f"{where}: the label {label!r} has a line break; it must be one line of text")


def ignored_columns(path: Path, header: list[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return a note on ignored columns, or (); it reveals misspelled names."""
    others = [name for name in header if name and name not in known]
    if not others:
        return ()
    return (f"{path}: ignored columns: {some(others)}; known columns: {','.join(known)}",)
