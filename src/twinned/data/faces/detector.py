"""Find faces in photographs: a network over an image pyramid, and non-maximum suppression.

The pyramid lies in one image, arranged as dlib does. The positions of the levels decide which windows the
network sees, so that boxes are those of dlib.

References:
    King, Max-margin object detection, arXiv:1502.00046, 2015; dlib/image_transforms/image_pyramid.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..images import Pixels
from . import models
from .landmarks import Points, predict

WINDOW = 80  # pixels of a level that a face covers
_OVERLAP = 0.338  # intersection over union at which the weaker of two boxes is dropped
_BETWEEN, _AROUND = 10, 11  # pixels between levels, and around all
_LOWEST = 5  # pixels of the height of a level
_FILL = (123, 117, 104)  # the mean that the network subtracts
# A larger image is searched in parts, which bounds the memory. Faces of up to half a part are found in one.
_PART_PIXELS = 4_000_000
_PART = 1600

Boxes = NDArray[np.float64]  # (n, 5): left, top, right, bottom, score


@dataclass(frozen=True, eq=False)
class Face:
    """Face in an image.

    Args:
        box: Left, top, right and bottom in pixels of the upright image, the last two exclusive. It can reach
            over the edge.
        score: Score of the detector; higher is more certain.
        landmarks: Points (x, y) in pixels, ``(5, 2)``: outer and inner corner of the left eye, outer and
            inner corner of the right eye, below the nose. The left eye is on the right side of the image.
    """

    box: tuple[int, int, int, int]
    score: float
    landmarks: Points

    @property
    def size(self) -> int:
        """Longer side of the box in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def find_faces(image: Image.Image, smallest: float, *, threshold: float = 0.0) -> list[Face]:
    """Find the faces from a size up, the largest first.

    Args:
        image: Upright image, mode L or RGB.
        smallest: Size of the smallest faces in pixels, about.
        threshold: Least score.

    Raises:
        MissingExtra: If the extra ``faces`` is not installed.
    """
    finder = models.finder()
    color = image if image.mode == "RGB" else image.convert("RGB")
    boxes = suppress(np.concatenate(list(_search(finder, color, smallest, threshold))))
    if not len(boxes):
        return []
    boxes = boxes[np.argsort(boxes[:, 0] - boxes[:, 2], kind="stable")]
    corners = np.rint(boxes[:, :4]).astype(int)
    points = predict(finder.predictor, image, corners)
    return [
        Face((left, top, right, bottom), float(score), landmarks)
        for (left, top, right, bottom), score, landmarks in zip(corners.tolist(), boxes[:, 4], points)
    ]


def suppress(boxes: Boxes) -> Boxes:
    """Return the boxes that overlap no box with a higher score, best first."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index, box in enumerate(boxes):
        low, high = np.maximum(box[:2], boxes[kept, :2]), np.minimum(box[2:4], boxes[kept, 2:4])
        common = np.prod((high - low).clip(0), axis=1)
        if not (common > _OVERLAP * (areas[index] + areas[kept] - common)).any():
            kept.append(index)
    return boxes[kept]


def _search(finder: models.Finder, image: Image.Image, smallest: float, threshold: float) -> Iterator[Boxes]:
    """Yield boxes in an image; those in the overlap of two parts come twice."""
    scale = WINDOW / smallest
    if image.width * image.height * scale**2 <= _PART_PIXELS:
        yield _boxes(finder, image, scale, threshold)
        return
    yield from _search(finder, image, 2 * smallest, threshold)
    part = round(_PART / scale)
    for top in range(0, image.height, part // 2):
        for left in range(0, image.width, part // 2):
            corner = min(left + part, image.width), min(top + part, image.height)
            found = _boxes(finder, image.crop((left, top, *corner)), scale, threshold)
            yield found + np.array([left, top, left, top, 0])
            if corner[0] == image.width:
                break
        if corner[1] == image.height:
            break


def _boxes(finder: models.Finder, image: Image.Image, scale: float, threshold: float) -> Boxes:
    """Return boxes in pixels of an image that is scaled first."""
    size = round(image.width * scale), round(image.height * scale)
    if min(size) < WINDOW // 4:  # no face fits, and the network needs more pixels
        return np.empty((0, 5))
    scaled = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    sizes, places = arrange(*size)
    scores = finder.session.run(None, {"pixels": _pyramid(scaled, sizes, places)})[0][0, 0]
    rows, columns = np.nonzero(scores > threshold)
    centers = np.stack([columns, rows], 1) * finder.step + finder.origin
    # The level of a window is the one that is nearest to its center.
    low, high = np.array(places), np.array(places) + sizes
    outside = np.maximum(low - centers[:, None], centers[:, None] - high).max(2)
    level = outside.clip(0).argmin(1)
    ratio = np.array(image.size) / np.array(sizes)[level]
    centers = (centers - low[level] + 0.5) * ratio
    half = WINDOW / 2 * ratio
    return np.concatenate([centers - half, centers + half, scores[rows, columns, None]], 1)


def arrange(width: int, height: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the sizes (width, height) of the levels of a pyramid, and their places (left, top) in one image.

    Each level has 5/6 of the sides of the one before. They lie below each other, and when more than half of
    the total height is used and two fit side by side, the rest goes up again on the right.
    """
    sizes = [(width, height)]
    while (smaller := (sizes[-1][0] * 5 // 6, sizes[-1][1] * 5 // 6))[0] and smaller[1] >= _LOWEST:
        sizes.append(smaller)
    total = sum(high + _BETWEEN for _, high in sizes) - 2 * _BETWEEN
    places: list[tuple[int, int]] = []
    used, before = 0, 0
    for wide, high in sizes:
        if wide <= width - before - _BETWEEN and 2 * (used - height) >= total - height:
            break
        places.append((_AROUND, _AROUND + used))
        used, before = used + high + _BETWEEN, wide
    bottom = _AROUND + used - _BETWEEN
    for wide, high in sizes[len(places) :]:
        if bottom - high < _AROUND + height:  # it would cover the first level
            break
        places.append((_AROUND + width - wide, bottom - high))
        bottom -= high + _BETWEEN
    return sizes[: len(places)], places


def _pyramid(image: Image.Image, sizes: list[tuple[int, int]], places: list[tuple[int, int]]) -> Pixels:
    """Return all levels in one image, ``(1, height, width, 3)``."""
    bottom = max(top + high for (_, high), (_, top) in zip(sizes, places, strict=True))
    height, width = bottom + _AROUND, image.width + 2 * _AROUND
    pixels = np.empty((1, height, width, 3), np.uint8)
    pixels.reshape(height, -1)[:] = np.tile(
        np.array(_FILL, np.uint8), width
    )  # row by row: five times as fast
    for number, ((wide, high), (left, top)) in enumerate(zip(sizes, places, strict=True)):
        if number:
            image = _resized(image, wide, high)
        # Each resizing rounds down, half a gray level on average.
        lost = (number + 1) // 2
        pixels[0, top : top + high, left : left + wide] = np.minimum(np.asarray(image), 255 - lost) + lost
    return pixels


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize with bilinear interpolation; the first and the last pixels stay in place, as in dlib."""
    across, down = (
        (old - 1) / max(new - 1, 1) for old, new in ((image.width, width), (image.height, height))
    )
    shift = (1 - across) / 2, (1 - down) / 2  # Pillow counts from the corners of pixels
    matrix = (across, 0, shift[0], 0, down, shift[1])
    return image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
