"""Reading data: a folder of class folders, a CSV, a pair list, arrays (DESIGN, section 6)."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, some
from ..images import SUFFIXES, ImageSource
from .sets import ImageSet, PairSet

# Pictures that people have and that are not read here; other files beside images are nobody's loss.
_PICTURES = (".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".pdf", ".eps")
_ADVICE = "save them as PNG or JPEG"
LIST = "images.csv"  # in a folder, it names the images and their labels instead of the folders
_OF_IMAGES, _OF_PAIRS = ("path", "label", "split", "group", "role"), ("left", "right", "same", "relation")
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
    path = Path(source)
    if path.is_dir():
        listed = path / LIST
        if listed.is_file() and {"path", "label"} <= set(_read_csv(listed)[0]):
            return load_images(listed)
        return _from_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; a folder of class folders or a CSV is expected")
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


def load_pairs(source: str | os.PathLike[str]) -> PairSet:
    """Read a pair list: a CSV with the columns ``left,right,same[,relation]``.

    Paths are relative to the CSV, or absolute. ``same`` is 1/0, true/false, yes/no or same/different.

    Raises:
        DataError: If a column is missing or a value cannot be read; names the line.
    """
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path}: no such file; a CSV with the columns left,right,same is expected")
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


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The column names, and each row with its line number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            header = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = []
            for row in reader:
                if not any(value.strip() for key, value in row.items() if key is not None):
                    continue  # a spreadsheet leaves rows of commas behind
                if None in row:
                    raise DataError(f"{path}, line {reader.line_num}: has more values than column names")
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
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


def _unread(path: Path, header: list[str], known: Sequence[str]) -> tuple[str, ...]:
    """What to say of columns that mean nothing here: a misspelt one would be missed by nobody."""
    others = [name for name in header if name and name not in known]
    if not others:
        return ()
    return (f"{path}: columns that are not read: {some(others)}; those that are: {','.join(known)}",)


def _from_rows(path: Path, rows: Iterable[tuple[int, dict[str, str]]], notes: tuple[str, ...]) -> ImageSet:
    images, labels, groups, forgery, split = [], [], [], [], []
    for line, row in rows:
        if not row["path"].strip() or not row["label"].strip():
            raise DataError(f"{path}, line {line}: path and label must not be empty")
        role = row.get("role", "").strip().lower() or "genuine"
        if role not in ("genuine", "forgery"):
            raise DataError(f"{path}, line {line}: role must be genuine or forgery; got {role!r}")
        images.append(str(path.parent / row["path"].strip()))
        labels.append(row["label"].strip())
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
    return ImageSet(
        images=images,
        labels=names,
        groups=np.array([str(g) for g in groups]) if groups is not None else np.full(len(names), ""),
        forgery=np.zeros(len(names), np.bool_),
        split=np.full(len(names), ""),
    )
