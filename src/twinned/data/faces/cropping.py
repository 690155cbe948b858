"""Cut the faces out of the photographs in a folder."""

from __future__ import annotations

import csv
import json
import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...errors import DataError, SettingError, many
from ...utils.files import check_output, replacing
from ..decoded import in_threads
from ..images import open_image
from ..readers import find_images
from . import models
from .detector import Face
from .landmarks import PADDING, align_chip
from .photographs import check_chip, search

LIST = "crops.csv"
COLUMNS = ("source", "box", "score", "output")


class Crops(NamedTuple):
    """Result of `crop`.

    Args:
        images: Number of photographs.
        faces: Number of faces that were cut out.
        no_face: Photographs without a face.
        whole: Small images without a found face, which were used as the face.
        several: Photographs with several faces.
        unreadable: A sentence for each photograph that cannot be read.
        output: Folder with the faces.
    """

    images: int
    faces: int
    no_face: list[str]
    whole: list[str]
    several: list[str]
    unreadable: list[str]
    output: str


def crop(
    photos: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    size: int = 150,
    margin: float = PADDING,
    every: bool = False,
    min_face: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Crops:
    """Write the aligned faces of photographs as PNG files into the same class folders.

    ``crops.csv`` in the folder has a line for each face: source, box (left, top, right, bottom in pixels of
    the upright photograph), score and output. A photograph without a face has a line without a box. The score
    is 0 where a small image without a found face is used as the face.

    Args:
        photos: Folder with photographs at any depth, or one photograph. It is not changed.
        output: Folder to write.
        size: Height and width of the faces in pixels, 8 to 2048.
        margin: Margin on each side of the average face, relative to its size, 0 to 2; encoders expect 0.25.
        every: Cut out every face of a photograph, not only the largest.
        min_face: Size of the smallest faces in pixels; 40 by default.
        resume: Continue in an existing folder: leave out the photographs in its crops.csv.
        overwrite: Replace the faces of an existing folder with a crops.csv.
        progress: Show a progress bar.

    Raises:
        DataError: If there are no photographs, or none has a face.
        MissingExtra: If the extra ``faces`` is not installed.
        SettingError: If ``output`` exists, or a value is out of range.
    """
    check_chip(size, margin)
    source, target = Path(photos), Path(output)
    check_output(target, force=resume or overwrite, data=[source], option="overwrite")
    folder = source if source.is_dir() else source.parent
    paths = find_images(source) if source.is_dir() else [str(source)]
    if not paths:
        raise DataError(f"{source}: no images in this folder")
    models.finder()  # before anything is written
    done = _earlier(target, size, resume=resume) if target.exists() else {}
    names = [Path(path).relative_to(folder) for path in paths]
    same = Counter(name.with_suffix("") for name in names)
    left = [name for name in names if name.as_posix() not in done]
    lock, several = threading.Lock(), list[str]()
    target.mkdir(parents=True, exist_ok=True)
    with (target / LIST).open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([] if file.tell() else [COLUMNS])

        def work(index: int) -> None:
            name = left[index]
            image = open_image(folder / name)
            found = search(image, every=every, min_face=min_face)
            # Of two photographs whose names differ in the suffix alone, the faces have both suffixes.
            stem = name if same[name.with_suffix("")] > 1 else name.with_suffix("")
            rows = _cut(image, found if every else found[:1], target, stem, size, margin)
            with lock:
                several.extend([str(folder / name)] if len(found) > 1 else [])
                done[name.as_posix()] = [(name.as_posix(), *row) for row in rows]
                writer.writerows(done[name.as_posix()])
                file.flush()

        errors = in_threads(work, len(left), "Finding faces", progress=progress)
    rows = [row for name in names for row in done.get(name.as_posix(), [])]
    with replacing(target / LIST) as new, new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    unreadable = [str(error) for error in errors.values()]
    if not (faces := sum(bool(row[3]) for row in rows)):
        found = f"{source}: no face was found in {many(len(paths), 'image')}"
        raise DataError(": ".join([found, *unreadable[:1]]))
    no_face = [str(folder / row[0]) for row in rows if not row[3]]
    whole = [str(folder / row[0]) for row in rows if row[3] and float(row[2]) == 0]
    return Crops(len(paths), faces, no_face, whole, sorted(several), unreadable, str(target))


def _cut(
    image: Image.Image, faces: list[Face], target: Path, stem: Path, size: int, margin: float
) -> list[tuple[str, str, str]]:
    """Write the faces of an image, and return box, score and output of each; empty ones without a face."""
    rows = []
    for number, face in enumerate(faces, start=1):
        output = stem.with_name(f"{stem.name}{f'.face{number}' if number > 1 else ''}.png")
        (target / output).parent.mkdir(parents=True, exist_ok=True)
        with replacing(target / output) as new:
            align_chip(image, face.landmarks, size, margin).save(new, "PNG")
        rows.append((json.dumps(face.box), f"{face.score:.4f}", output.as_posix()))
    return rows or [("", "", "")]


def _earlier(target: Path, size: int, *, resume: bool) -> dict[str, list[tuple[str, ...]]]:
    """Return the rows of a folder that was written before, by source; without ``resume`` delete its faces."""
    header, rows = list[str](), list[list[str]]()
    with suppress(OSError, ValueError, csv.Error), (target / LIST).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    if tuple(header) != COLUMNS:
        raise SettingError(f"{target}: The folder exists and has no {LIST}. Choose another name")
    rows = [row for row in rows if len(row) == len(COLUMNS)]  # the last may be cut off
    root = target.resolve()
    inside = [path for row in rows if row[3] and (path := (root / row[3]).resolve()).is_relative_to(root)]
    if not resume:
        for path in [*inside, root / LIST]:
            path.unlink(missing_ok=True)
        return {}
    for path in filter(Path.is_file, inside[:1]):
        if (width := open_image(path).width) != size:
            raise SettingError(
                f"{target}: Its faces have {width} pixels, not {size}. Set the size to {width}"
            )
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(tuple(row))
    return found
