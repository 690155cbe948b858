"""Reading data: a folder of class folders, a CSV, a pair list, arrays (DESIGN, section 6)."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..errors import DataError, some
from .datasets import ImageSet, PairSet
from .images import (
    FORMATS,
    SUFFIXES,
    ImageSource,
    address_in,
    advice_on,
)

# Pictures that people have and that are not read here; other files beside images are nobody's loss.
_PICTURES = (".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".pdf", ".eps")
_ADVICE = "save them as PNG or JPEG"
LIST = "images.csv"  # in a folder, it names the images and their labels instead of the folders
_OF_IMAGES, _OF_PAIRS = ("path", "label", "split", "group", "role"), ("left", "right", "same", "relation")
Row: TypeAlias = tuple[int, dict[str, str]]  # the number of its first line, its values by column name
# A value of a CSV: quoted, with what stands behind the closing quote, or bare.
_VALUE = re.compile(r'(?P<quoted>"[^"]*(?:""[^"]*)*(?P<closed>"?))?(?P<rest>[^,\r\n]*)')
_BREAK = re.compile(r"\r\n|\r|\n")
# First bytes of ZIP, gzip, bzip2, xz, 7z, RAR and Zstandard; a tar has its own at byte 257.
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
_TRUE, _FALSE = {"1", "true", "yes", "same", "y", "t"}, {"0", "false", "no", "different", "n", "f"}


def load_images(
    source: str | os.PathLike[str] | Sequence[ImageSource] | np.ndarray[Any, Any],
    labels: Sequence[Any] | np.ndarray[Any, Any] | None = None,
    *,
    groups: Sequence[str] | None = None,
) -> ImageSet:
    """Find images and their labels; nothing is decoded yet.

    Args:
        source: A folder of class folders at any depth (the label is the path of the folder that holds
            the image, the group is its parent), a CSV with the columns
            ``path,label[,split][,group][,role]``, a folder with such a CSV in it under the name
            ``images.csv``, or a sequence of images (then ``labels`` is needed).
        labels: The class of each image, where ``source`` is a sequence.
        groups: The group of each image, where ``source`` is a sequence.

    Returns:
        The images, sorted by path where they come from a folder.

    Raises:
        DataError: If nothing is there to read; says what was found and what was expected.

    Example:
        >>> faces = load_images(np.zeros((4, 8, 8), np.uint8), ["anna", "anna", "ben", "ben"])
        >>> faces.classes
        ['anna', 'ben']
    """
    if labels is not None:
        if isinstance(source, (str, os.PathLike)):
            raise DataError(f"labels belong to a sequence of images; {source} is one path")
        return _from_sequence(source, labels, groups)
    if not isinstance(source, (str, os.PathLike)):
        raise DataError("a sequence of images needs labels=, one for each image")
    folder = _existing(source, "a folder of class folders or a CSV")
    path = _list_of(folder)
    if path is None:
        return _from_folder(folder)
    header, rows = _read_csv(path)
    if not {"path", "label"} <= set(header):
        pairs = {"left", "right"} <= set(header)
        hint = "; this is a pair list, which has no class labels" if pairs else ""
        if pairs and "same" not in header:
            hint = "; a pair list names left,right,same"
        raise DataError(
            f"{path}: the first line must name the columns path,label[,split][,group][,role];"
            f" got {','.join(header) or 'an empty file'}{hint}"
        )
    return _from_rows(path, rows, _unread(path, header, _OF_IMAGES))


def load_with_metadata(source: str | os.PathLike[str]) -> tuple[ImageSet, list[dict[str, str]]]:
    """Find images as `load_images` does, with the other columns of a CSV.

    Returns:
        The images, and for each the values of all columns but path, label and role that are not empty.

    Raises:
        DataError: If nothing is there to read.
    """
    images = load_images(source)
    path = _list_of(Path(source))
    if path is None:
        return images, [{} for _ in range(len(images))]
    header, rows = _read_csv(path)
    metadata = [
        {
            name: value.strip()
            for name, value in row.items()
            if name and name not in ("path", "label", "role") and value.strip()
        }
        for _, row in rows
    ]
    unread = _unread(path, header, _OF_IMAGES)
    return replace(images, notes=tuple(note for note in images.notes if note not in unread)), metadata


def load_pairs(source: str | os.PathLike[str]) -> PairSet:
    """Read a pair list: a CSV with the columns ``left,right,same[,relation]``.

    Paths are relative to the CSV, or absolute. ``same`` is 1/0, true/false, yes/no or same/different.

    Raises:
        DataError: If a column is missing or a value cannot be read; names the line.
    """
    path = _existing(source, "a CSV with the columns left,right,same")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a CSV with the columns left,right,same is expected")
    header, rows = _read_csv(path)
    if not {"left", "right", "same"} <= set(header):
        raise DataError(f"{path}: the first line must name left,right,same; got {','.join(header)}")
    place: dict[str, int] = {}
    left: list[int] = []
    right: list[int] = []
    same, relation = [], []
    for line, row in rows:
        word = row["same"].strip().lower()
        if word not in _TRUE | _FALSE:
            raise DataError(f"{path}, line {line}: same must be 1 or 0 (true or false); got {row['same']!r}")
        for column, ends in (("left", left), ("right", right)):
            if not row[column].strip():
                raise DataError(f"{path}, line {line}: {column} is empty; the path of an image is expected")
            ends.append(place.setdefault(str(path.parent / row[column].strip()), len(place)))
        same.append(word in _TRUE)
        relation.append(row.get("relation", "").strip())
    if not same:
        raise DataError(f"{path}: holds no pairs, only its first line")
    return PairSet(
        images=list(place),
        left=np.array(left, dtype=np.intp),
        right=np.array(right, dtype=np.intp),
        same=np.array(same, dtype=np.bool_),
        relation=np.array(relation) if "relation" in header else None,
        origin=str(path),
        notes=_unread(path, header, _OF_PAIRS),
    )


def load(source: str | os.PathLike[str]) -> ImageSet | PairSet:
    """Read a folder, a CSV of images or a pair list, whichever it is; as `load_images`, `load_pairs`."""
    path = Path(source)
    if path.is_file() and {"left", "right", "same"} <= set(_read_csv(path)[0]):
        return load_pairs(path)
    return load_images(path)


def as_dataset(data: str | os.PathLike[str] | ImageSet | PairSet) -> ImageSet | PairSet:
    """Return a dataset unchanged, or read it from a path as `load` does."""
    return load(data) if isinstance(data, (str, os.PathLike)) else data


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Every image file below a folder, sorted; hidden files and folders are passed over."""
    found = sorted((*above, file) for above, images, _ in _folders(str(folder)) for file in images)
    return [os.path.join(folder, *parts) for parts in found]


def references_of(image: ImageSource) -> list[ImageSource]:
    """The image itself, or those that lie in a folder of references.

    Raises:
        DataError: If the folder holds none.
    """
    if not isinstance(image, (str, os.PathLike)) or not os.path.isdir(image):
        return [image]
    folder = os.path.normpath(image)
    files = [path for path in find_images(folder) if os.path.dirname(path) == folder]
    if not files:
        raise DataError(f"{os.fspath(image)}: a folder of references must hold images; it holds none")
    return list(files)


def _existing(source: str | os.PathLike[str], expected: str) -> Path:
    """Return the path of data that exist.

    Raises:
        DataError: If nothing is there.
    """
    path = Path(source)
    if path.exists():
        return path
    if address := address_in(os.fsdecode(source)):
        raise DataError(f"{address}: is an address; download the data first: {expected} on disk is expected")
    raise DataError(f"{path}: no such file or folder; {advice_on(str(path)) or f'{expected} is expected'}")


def _list_of(path: Path) -> Path | None:
    """Return the CSV that names the images: the path itself, or that in a folder; None without one."""
    if not path.is_dir():
        return path
    listed = path / LIST
    return listed if listed.is_file() and {"path", "label"} <= set(_read_csv(listed)[0]) else None


def _from_folder(root: Path) -> ImageSet:
    folders = list(_folders(str(root)))
    inside = sorted((*above, file) for above, images, _ in folders for file in images if above)
    loose = sum(len(images) for above, images, _ in folders if not above)
    foreign = Counter(suffix for _, _, others in folders for suffix in others)
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in foreign.most_common())
    if not inside and not loose:
        hint = f" of a kind that is read ({kinds}: {_ADVICE})" if kinds else ""
        raise DataError(f"{root}: holds no images{hint}; a folder with one folder for each class is expected")
    if not inside:
        raise DataError(
            f"{root}: holds {loose} images but no class folders; put the images of each class in a"
            " folder of its own, or name them in a CSV with the columns path,label"
        )
    notes = []
    if loose:
        notes.append(f"{root}: {loose} images lie beside the class folders and are left out")
    if kinds:
        notes.append(f"{root}: pictures of kinds that are not read are left out ({kinds}): {_ADVICE}")
    holding = {above[:depth] for above, images, _ in folders if images for depth in range(len(above) + 1)}
    empty = ["/".join(above) for above, _, _ in folders if above not in holding]
    if empty:
        notes.append(f"{root}: folders without an image are no class: {some(empty)}")
    labels = ["/".join(parts[:-1]) for parts in inside]
    for label in set(labels):
        _check_label(str(root), label)
    return ImageSet(
        images=[os.path.join(root, *parts) for parts in inside],
        labels=np.array(labels),
        groups=np.array(["/".join(parts[:-2]) for parts in inside]),
        forgery=np.zeros(len(inside), np.bool_),
        split=np.full(len(inside), ""),
        origin=str(root),
        notes=tuple(notes),
    )


def _folders(root: str) -> Iterator[tuple[tuple[str, ...], list[str], list[str]]]:
    """Each folder from the root down, its path in parts: its images, and the kinds of pictures not read.

    Follows links, but enters each folder once.
    """
    seen: set[tuple[int, int]] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(d for d in inner if not d.startswith(".") and d != "__MACOSX")
        relative = os.path.relpath(folder, root)
        above = () if relative == "." else tuple(relative.split(os.sep))
        kinds = [(file, os.path.splitext(file)[1].lower()) for file in files if not file.startswith(".")]
        images = [file for file, suffix in kinds if suffix in SUFFIXES]
        yield above, images, [suffix for _, suffix in kinds if suffix in _PICTURES]


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """The column names, and each row with the number of its first line."""
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
                    raise DataError(f"{path}, line {line}: has more values than column names")
                rows.append((line, dict(itertools.zip_longest(header, values, fillvalue=""))))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not a CSV in UTF-8 ({error}); a folder of class folders or a CSV is expected"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if len(header) == 1 and ";" in header[0]:
        raise DataError(
            f"{path}: its values are parted by semicolons; commas are expected: save it with those"
        )
    return header, rows


def _header(names: Iterable[str]) -> list[str]:
    """Return column names without spaces; those that are read here in lower case."""
    known = {*_OF_IMAGES, *_OF_PAIRS}
    return [low if (low := name.strip().lower()) in known else name.strip() for name in names]


def _records(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Each record of a CSV that is not an empty line, with the number of its first line.

    Raises:
        DataError: If a quote is not closed, or a value that names or labels an image has a line break.
    """
    taken: list[str] = []  # the lines of the record that is being read
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
            raise DataError(f"{path}, line {first}: is not a row of a CSV ({error})") from None
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
    """Refuse a record whose quotes take in what should be rows of their own.

    Args:
        path: The CSV.
        header: The column names; none for the first record.
        first: The number of the record's first line.
        record: Its text, with line breaks.

    Raises:
        DataError: If a quote is not closed, or not where a value ends, or if a value that is read here has a
            line break. Names the line where the quote opens.
    """
    place = 0
    for column in itertools.count():
        value = _VALUE.match(record, place)
        if value is None:
            return
        quoted, closed, rest = value["quoted"], value["closed"], value["rest"]
        line = first + len(_BREAK.findall(record[:place]))
        if quoted is not None and not closed:
            raise DataError(
                f'{path}, line {line}: a quote (") opens here and is not closed; close it, or remove it'
            )
        if quoted is not None and _BREAK.search(quoted):
            name = header[column] if column < len(header) else ""
            if rest.strip() or not header or name in (*_OF_IMAGES, *_OF_PAIRS):
                raise DataError(
                    f'{path}, line {line}: a quote (") opens here and is closed on another line; close it on'
                    f" line {line}, or remove it: {name or 'a value'} is one line of text"
                )
        place = value.end() + 1
        if record[value.end() : place] != ",":
            return


def _refuse_other_files(path: Path) -> None:
    """Refuse a file of another kind than a CSV, by the kind.

    Raises:
        DataError: If it is an archive, a workbook or an image.
    """
    if path.suffix.lower() in _WORKBOOKS:
        raise DataError(f"{path}: is a workbook; save the sheet as CSV (UTF-8)")
    with path.open("rb") as file:
        head = file.read(_TAR_AT + len(_TAR))
    if head.startswith(_ARCHIVES) or head[_TAR_AT:] == _TAR:
        raise DataError(f"{path}: is an archive; unpack it first and give the folder or CSV that it holds")
    try:
        with Image.open(path, formats=FORMATS) as image:
            kind = image.format
    except Exception:  # Pillow raises almost anything on files that are no images
        return
    raise DataError(f"{path}: is an image ({kind}); a folder of class folders or a CSV is expected")


def _check_label(where: str, label: str) -> None:
    """Refuse a label with a line break, as the service does.

    Raises:
        DataError: If it has one.
    """
    if label.splitlines() not in ([label], []):
        raise DataError(f"{where}: the label {label!r} has a line break; a label is one line of text")


def _unread(path: Path, header: list[str], known: Sequence[str]) -> tuple[str, ...]:
    """What to say of columns that mean nothing here: a misspelt one would be missed by nobody."""
    others = [name for name in header if name and name not in known]
    if not others:
        return ()
    return (f"{path}: columns that are not read: {some(others)}; those that are: {','.join(known)}",)


def _from_rows(path: Path, rows: Iterable[Row], notes: tuple[str, ...]) -> ImageSet:
    images, labels, groups, forgery, split = [], [], [], [], []
    for line, row in rows:
        label = row["label"].strip()
        if not row["path"].strip() or not label:
            raise DataError(f"{path}, line {line}: path and label must not be empty")
        _check_label(f"{path}, line {line}", label)
        role = row.get("role", "").strip().lower() or "genuine"
        if role not in ("genuine", "forgery"):
            raise DataError(f"{path}, line {line}: role must be genuine or forgery; got {role!r}")
        images.append(str(path.parent / row["path"].strip()))
        labels.append(label)
        groups.append(row.get("group", "").strip())
        split.append(row.get("split", "").strip())
        forgery.append(role == "forgery")
    if not images:
        raise DataError(f"{path}: holds no images, only its first line")
    return ImageSet(
        images=images,
        labels=np.array(labels),
        groups=np.array(groups),
        forgery=np.array(forgery, np.bool_),
        split=np.array(split),
        origin=str(path),
        notes=notes,
    )


def _from_sequence(images: Any, labels: Any, groups: Sequence[str] | None) -> ImageSet:
    names = np.asarray([str(label) for label in labels])
    if len(images) != len(names):
        raise DataError(f"one label for each image is needed; got {len(images)} images, {len(names)} labels")
    if groups is not None and len(groups) != len(names):
        raise DataError(f"one group for each image is needed; got {len(names)} images, {len(groups)} groups")
    if len(names) == 0:
        raise DataError("there are no images")
    for label in np.unique(names).tolist():
        _check_label("labels", label)
    return ImageSet(
        images=images,
        labels=names,
        groups=np.array([str(g) for g in groups]) if groups is not None else np.full(len(names), ""),
        forgery=np.zeros(len(names), np.bool_),
        split=np.full(len(names), ""),
    )
