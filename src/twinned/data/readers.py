"""Read datasets: class folders, a CSV of images, a pair list, arrays."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from ..errors import DataError, many, some
from .arrays import SupportsArray
from .datasets import ImageSet, PairSet, check_label
from .images import SUFFIXES, ImageSource, advice_on, as_many, is_folder, open_known
from .sequences import from_images, from_items, image_set, is_sequence_of_items


class Items(Protocol):
    """Sequence of images, or of pairs (image, label), such as a PyTorch ``Dataset``; it also has a length."""

    def __getitem__(self, index: int, /) -> Any: ...


# What `load_images` reads, and all that functions on whole datasets accept.
ImageData: TypeAlias = str | os.PathLike[str] | SupportsArray | Items
Data: TypeAlias = ImageSet | PairSet | ImageData

# Image formats that are not supported. The reader warns about them, and ignores other files silently.
_RAW = (".dng", ".cr2", ".nef", ".arw")
_UNSUPPORTED = (*_RAW, ".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".pdf", ".eps")
_ADVICE = "save them as PNG or JPEG"
LIST = "images.csv"  # in a folder, replaces the folder names as the source of labels
_IMAGE_COLUMNS = ("path", "label", "split", "group", "role")
_PAIR_COLUMNS = ("left", "right", "same", "relation")
_KNOWN = {*_IMAGE_COLUMNS, *_PAIR_COLUMNS}
_Row: TypeAlias = tuple[int, dict[str, str]]  # number of the first line, values by column name
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
_TRUE, _FALSE = {"1", "true", "yes", "same", "y", "t"}, {"0", "false", "no", "different", "n", "f"}


def load_images(
    source: ImageData,
    labels: Sequence[Any] | SupportsArray | None = None,
    *,
    groups: Sequence[str] | None = None,
) -> ImageSet:
    """Find images and their labels without decoding them.

    Args:
        source: Folder of class folders at any depth (the label of an image is the path of its folder, the
            group is the parent of that), CSV with the columns ``path,label[,split][,group][,role]``, or
            folder with such a CSV named ``images.csv``. Without a path: images and ``labels``, the pair
            ``(images, labels)``, or a sequence of pairs (image, label) such as a PyTorch ``Dataset``.

            Images are a sequence of paths, Pillow images, arrays or tensors, or one array or tensor of shape
            ``(n, height, width)``, ``(n, height, width, channels)`` or ``(n, channels, height, width)``:
            uint8, bool, uint16, or floats in [0, 1].
        labels: Class of each image: integers or strings, shape ``(n,)``.
        groups: Group of each image.

    Returns:
        The images; those of a folder are sorted by path.

    Raises:
        DataError: If there are no images, the source cannot be read, the axes or values of an array are
            ambiguous or unsupported, or labels are missing or floats.

    Example:
        >>> faces = load_images(np.zeros((4, 8, 8), np.uint8), ["anna", "anna", "ben", "ben"])
        >>> faces.classes
        ['anna', 'ben']
    """
    if isinstance(source, (str, os.PathLike)):
        if labels is not None:
            raise DataError(f"labels require a sequence of images; got the path {source}")
        return _images(_table(source))
    if labels is not None:
        return from_images(source, labels, groups)
    if isinstance(source, tuple) and len(source) == 2:
        return from_images(*source, groups=groups)
    if is_sequence_of_items(source):
        return from_items(source)
    raise DataError("images without a path require labels=, one per image, or (images, labels)")


def load_with_metadata(source: str | os.PathLike[str]) -> tuple[ImageSet, list[dict[str, str]]]:
    """Find images like `load_images`, and for each the non-empty columns except path, label and role."""
    table = _table(source)
    images, hidden = _images(table), ("", "path", "label", "role")
    if not table.rows:  # a folder
        return images, [{} for _ in range(len(images))]
    return replace(images, notes=()), [
        {name: value for name, value in row.items() if value and name not in hidden} for _, row in table.rows
    ]


def load_pairs(source: str | os.PathLike[str]) -> PairSet:
    """Read a pair list: a CSV with the columns ``left,right,same[,relation]``.

    Paths are absolute or relative to the CSV. ``same`` is 1/0, true/false, yes/no or same/different.

    Raises:
        DataError: If a column is missing or a value is invalid; names the line.
    """
    if is_folder(source):
        raise DataError(f"{source}: expected a CSV with the columns left,right,same; got a folder")
    return _pairs(_table(source))


def load(source: str | os.PathLike[str]) -> ImageSet | PairSet:
    """Read a folder or a CSV of images like `load_images`, or a pair list like `load_pairs`."""
    table = _table(source)
    return _pairs(table) if {"left", "right", "same"} <= set(table.header) else _images(table)


def as_dataset(data: Data) -> ImageSet | PairSet:
    """Return a dataset unchanged, read it from a path as `load` does, or else as `load_images` does."""
    if isinstance(data, (ImageSet, PairSet)):
        return data
    return load(data) if isinstance(data, (str, os.PathLike)) else load_images(data)


class _Table(NamedTuple):
    path: Path  # a CSV, or a folder of class folders, which has no header
    header: list[str]
    rows: list[_Row]


def _table(source: str | os.PathLike[str]) -> _Table:
    """Read a CSV, or that in a folder; images.csv without labels is ignored."""
    path = Path(source)
    if not path.exists():
        advice = advice_on(str(path)) or "expected a folder of class folders or a CSV"
        raise DataError(f"{path}: no such file or folder; {advice}.")
    if not path.is_dir():
        return _Table(path, *_read_csv(path))
    if (listed := path / LIST).is_file():
        table = _Table(listed, *_read_csv(listed))
        if {"path", "label"} <= set(table.header):
            return table
    return _Table(path, [], [])


def _pairs(table: _Table) -> PairSet:
    path, header, rows = table
    if not {"left", "right", "same"} <= set(header):
        raise DataError(f"{path}: The first line must be left,right,same; got {','.join(header)}.")
    if not rows:
        raise DataError(f"{path}: no pairs after the first line")
    for line, row in rows:
        if row["same"].lower() not in _TRUE | _FALSE:
            raise DataError(f"{path}, line {line}: same must be 1 or 0 (true or false); got {row['same']!r}")
        if missing := [column for column in ("left", "right") if not row[column]]:
            raise DataError(f"{path}, line {line}: {missing[0]} is empty; expected the path of an image")
    ends = [[str(path.parent / row[column]) for column in ("left", "right")] for _, row in rows]
    place = {name: index for index, name in enumerate(dict.fromkeys(chain(*ends)))}
    left, right = np.array([[place[name] for name in pair] for pair in ends], np.intp).T
    return PairSet(
        images=list(place),
        left=left,
        right=right,
        same=np.array([row["same"].lower() in _TRUE for _, row in rows]),
        relation=np.array([row["relation"] for _, row in rows]) if "relation" in header else None,
        origin=str(path),
        notes=_ignored_columns(path, header, _PAIR_COLUMNS),
    )


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the sorted paths of all image files below a folder, except hidden files and folders."""
    found = sorted((*above, file) for above, images, _ in _folders(str(folder)) for file in images)
    return [os.path.join(folder, *parts) for parts in found]


def images_of(images: Any) -> Any:
    """Return images as `as_many` does, those of an image set, or the paths of all images below a folder."""
    if isinstance(images, ImageSet):
        return images.images
    if is_folder(images):
        return find_images(images)
    return as_many(images)


def references_of(image: ImageSource) -> list[ImageSource]:
    """Return the images in a folder of references, or a list with the image itself.

    Raises:
        DataError: If the folder holds no images.
    """
    if not is_folder(image):
        return [image]
    folder = os.path.normpath(image)
    files = [path for path in find_images(folder) if os.path.dirname(path) == folder]
    if not files:
        raise DataError(f"{os.fspath(image)}: no images in this folder of references")
    return list(files)


def _from_folder(root: Path) -> ImageSet:
    folders = list(_folders(str(root)))
    inside = sorted((*above, file) for above, images, _ in folders for file in images if above)
    loose = sum(len(images) for above, images, _ in folders if not above)
    foreign = Counter(suffix for _, _, others in folders for suffix in others)
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in foreign.most_common())
    if not inside and not loose:
        hint = f" of a supported format ({kinds}: {_ADVICE})" if kinds else ""
        raise DataError(f"{root}: No images{hint}. Expected a folder with one folder per class.")
    if not inside:
        raise DataError(
            f"{root}: Found {many(loose, 'image')}, but no class folders. Put the images of each class in a"
            " separate folder, or list them in a CSV with the columns path,label."
        )
    notes = []
    if loose:
        notes.append(f"{root}: ignored {many(loose, 'image')} beside the class folders")
    if kinds:
        notes.append(f"{root}: ignored images of unsupported formats ({kinds}): {_ADVICE}")
    holding = {above[:depth] for above, images, _ in folders if images for depth in range(len(above) + 1)}
    empty = ["/".join(above) for above, _, _ in folders if above not in holding]
    if empty:
        notes.append(f"{root}: ignored folders without images: {some(empty)}")
    labels = ["/".join(parts[:-1]) for parts in inside]
    for label in set(labels):
        check_label(str(root), label)
    groups = ["/".join(parts[:-2]) for parts in inside]
    found = image_set([os.path.join(root, *parts) for parts in inside], np.array(labels), groups)
    return replace(found, origin=str(root), notes=tuple(notes))


def _folders(root: str) -> Iterator[tuple[tuple[str, ...], list[str], list[str]]]:
    """Yield the relative path of each folder in parts, its images, and the suffixes of unsupported images.

    Links are followed, but each folder is visited once.
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
        yield above, images, [suffix for _, suffix in kinds if suffix in _UNSUPPORTED]


def _images(table: _Table) -> ImageSet:
    path, header, rows = table
    if path.is_dir():
        return _from_folder(path)
    if not {"path", "label"} <= set(header):
        is_pairs = {"left", "right"} <= set(header)
        hint = " A pair list has the columns left,right,same, and no class labels." if is_pairs else ""
        raise DataError(
            f"{path}: The first line must be the column names path,label[,split][,group][,role];"
            f" got {','.join(header) or 'an empty file'}.{hint}"
        )
    if not rows:
        raise DataError(f"{path}: no images after the first line")
    for line, row in rows:
        if not row["path"] or not row["label"]:
            raise DataError(f"{path}, line {line}: path and label must not be empty")
        check_label(f"{path}, line {line}", row["label"])
        if (role := row.get("role", "").lower()) not in ("", "genuine", "forgery"):
            raise DataError(f"{path}, line {line}: role must be genuine or forgery; got {role!r}")
    values = {name: [row.get(name, "") for _, row in rows] for name in _IMAGE_COLUMNS}
    return ImageSet(
        images=[str(path.parent / name) for name in values["path"]],
        labels=np.array(values["label"]),
        groups=np.array(values["group"]),
        forgery=np.array([role.lower() == "forgery" for role in values["role"]]),
        split=np.array(values["split"]),
        origin=str(path),
        notes=_ignored_columns(path, header, _IMAGE_COLUMNS),
    )


def _read_csv(path: Path) -> tuple[list[str], list[_Row]]:
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
                rows.append((line, dict(zip_longest(header, values, fillvalue=""))))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: Not a CSV in UTF-8 ({error}). Expected a folder or a CSV.") from None
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
            raise DataError(f'{path}, line {start + line}: Close or remove the quote (") that opens here.')
        header = header or _header(values)
        if values:
            yield start + 1, values


def _open_quote(header: list[str], values: list[str], record: str) -> int | None:
    """Return the line of a record, from 1, where a quote opens that should close on that line; else None.

    Only a quoted value of an unknown column may have line breaks.
    """
    line = 1
    for name, value in zip_longest(header[: len(values)], values, fillvalue=""):
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


def _ignored_columns(path: Path, header: list[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return a note on ignored columns, or (); it reveals misspelled names."""
    others = [name for name in header if name and name not in known]
    if not others:
        return ()
    return (f"{path}: ignored columns: {some(others)}; known columns: {','.join(known)}",)
