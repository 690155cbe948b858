"""Faces in photographs: `detect`, `align`, and the faces that preprocessing cuts out."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from PIL import Image

from ...errors import ImageError, SettingError
from ...utils.notes import note
from ..images import ImageSource, Pixels, open_image, source_name
from . import models
from .detector import Face, find_faces
from .landmarks import PADDING, align_chip, predict

MIN_FACE = 40  # pixels; smaller faces have too little detail
_FIRST = 80  # pixels; larger faces are searched first, which takes a quarter of the time
_PER_SIDE = 8  # the first search for the largest face: from 1/8 of the longer side of the image
_CROP = 320  # pixels of the longer side up to which an image without a found face is used as the face
_LEAST = 16  # pixels of the shorter side from which it is so used
_INNER = (0.14, 0.2, 0.86, 0.88)  # the face in such an image, relative to its sides
_SAMPLE = 32  # images
_DARK = 100  # gray level; an image whose brightest parts are below is brightened for the search
_BRIGHTEST = 99  # percentile

_REMEMBERED = 50_000  # files

_noted: set[str] = set()
# Faces of files that were searched: training reads each several times, and the search takes most of the time.
_searched: dict[tuple[object, ...], list[Face]] = {}
_lock = threading.Lock()


def detect(image: ImageSource, *, min_face: float | None = None) -> list[Face]:
    """Find the faces in a photograph, the largest first.

    Upright and moderately turned faces (up to about 30 degrees) are found, seen from the front to a
    half-profile.

    Args:
        image: Image, as for `twinned.load`'s models; EXIF orientation is applied first.
        min_face: Size of the smallest faces in pixels of the image, at least 10. By default faces from 80
            pixels up are searched, and from 40 up if there is none; 40 finds all of these at once.

    Returns:
        Faces with box, score and five landmarks in pixels of the upright image; empty if there is none.

    Raises:
        ImageError: If the image cannot be opened.
        MissingExtra: If the extra ``faces`` is not installed.
        SettingError: If ``min_face`` is out of range.
    """
    if min_face is not None and not (math.isfinite(min_face) and min_face >= 10):
        raise SettingError(f"min_face must be at least 10 pixels; got {min_face}")
    opened = open_image(image)
    sizes = (_FIRST, MIN_FACE) if min_face is None else (min_face,)
    return _first_found(_brightened(opened), sizes)


def align(image: ImageSource, face: Face, size: int = 150, *, margin: float = PADDING) -> Pixels:
    """Cut out a face, turned, scaled and shifted so that its landmarks lie on those of the average face.

    Args:
        image: Image in which `detect` found the face.
        face: Face.
        size: Height and width of the result in pixels, 8 to 2048.
        margin: Margin on each side of the average face, relative to its size, 0 to 2; encoders expect 0.25.

    Returns:
        Array of uint8, ``(size, size, 3)``; black outside the image.

    Raises:
        ImageError: If the image cannot be opened.
        SettingError: If the size or the margin is out of range.
    """
    check_chip(size, margin)
    return np.asarray(align_chip(open_image(image).convert("RGB"), face.landmarks, size, margin))


def check_chip(size: int, margin: float) -> None:
    """Refuse a size or a margin of aligned faces that is out of range."""
    if not 8 <= size <= 2048:
        raise SettingError(f"size must be from 8 to 2048 pixels; got {size}")
    if not 0 <= margin <= 2:
        raise SettingError(f"margin must be from 0 to 2; got {margin}")


def expected_faces(
    image: Image.Image, source: ImageSource, *, every: bool = False, min_face: float | None = None
) -> list[Face]:
    """Find the faces of an image that must have one, as `search` does: the largest, or each."""
    name = source_name(source)
    key: tuple[object, ...] = ()
    if isinstance(source, (str, os.PathLike)):
        with suppress(OSError):
            status = os.stat(source)
            key = os.fspath(source), status.st_mtime_ns, status.st_size, every, min_face
    found = _searched.get(key, [])
    if not found:
        found = search(image, every=every, min_face=min_face)
        if key and len(_searched) < _REMEMBERED:
            _searched[key] = found
    if not found:
        raise ImageError(
            name,
            f'no face was found (of {min_face or MIN_FACE:g} pixels or more). Choose `faces="none"` for an'
            " image without faces or of one face that fills it, `min_face=` for smaller faces",
        )
    if found[0].score == 0:
        _note_once("no-face", f"{name}: no face was found; the whole image is used as the face")
    if len(found) > 1 and not every:
        advice = 'With `faces="all"`, identify, classify, search and embed answer for each'
        _note_once(
            "several-faces", f"{name}: {len(found)} faces were found, and the largest is used. {advice}"
        )
    return found if every else found[:1]


def search(image: Image.Image, *, every: bool = False, min_face: float | None = None) -> list[Face]:
    """Find the faces of an upright image, the largest first; ``every`` finds much smaller ones, too.

    In a small image without a found face, the face is a part of fixed place with a score of 0.
    """
    bright = _brightened(image)
    least = min_face or MIN_FACE
    start = least if every or min_face else max(least, max(image.size) / _PER_SIDE)
    sizes = [max(least, start / 2**step) for step in range(math.ceil(math.log2(start / least)) + 1)]
    found = _first_found(bright, sizes)
    if found or max(image.size) > _CROP or min(image.size) < _LEAST:
        return found
    box = np.rint(np.array(_INNER) * (*image.size, *image.size)).astype(int)
    left, top, right, bottom = box.tolist()
    return [Face((left, top, right, bottom), 0.0, predict(models.finder().predictor, bright, box[None])[0])]


def share_with_faces(
    images: Sequence[ImageSource], *, part: float = 1 / _PER_SIDE, least: float = 0.5, seed: int = 0
) -> float | None:
    """Return the share of some images that show a face of at least a ``part`` of the longer side, 0 to 1.

    Images are opened one by one, until the share cannot reach ``least`` any more. None if no image can be
    read, or the extra ``faces`` is not installed.
    """
    if not models.is_installed():
        return None
    sample = np.random.default_rng(seed).permutation(len(images))[:_SAMPLE].tolist()
    shown: list[bool] = []
    for place in sample:
        with suppress(ImageError):
            image = open_image(images[place])
            shown.append(bool(find_faces(_brightened(image), max(MIN_FACE, part * max(image.size)))))
        if shown.count(False) > (1 - least) * len(sample):
            break
    return sum(shown) / len(shown) if shown else None


def _first_found(image: Image.Image, sizes: tuple[float, ...] | list[float]) -> list[Face]:
    """Return the faces of the first search that finds one."""
    return next((found for size in sizes if (found := find_faces(image, size))), [])


def _brightened(image: Image.Image) -> Image.Image:
    """Return a dark image with its gray levels stretched, another one unchanged."""
    counts = image.convert("L").histogram() if image.mode != "L" else image.histogram()
    share = np.cumsum(counts) / max(1, sum(counts))
    brightest = int(np.searchsorted(share, _BRIGHTEST / 100))
    if brightest >= _DARK:
        return image
    factor = 255 / max(brightest, 8)
    return image.point(lambda value: min(255, round(value * factor)))


def _note_once(code: str, text: str) -> None:
    """Log a note of a kind for the first image only, since data sets can have thousands."""
    with _lock:
        if code in _noted:
            return
        _noted.add(code)
    note(code, f"{text}; further images like this are not listed")
