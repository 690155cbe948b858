"""Find faces in photographs: a network over an image pyramid, and non-maximum suppression.

The pyramid lies in one image, arranged as dlib does, so that boxes are those of dlib. Sources: King,
Max-margin object detection, arXiv:1502.00046, 2015; dlib/image_transforms/image_pyramid.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import models
from .landmarks import Points, predict

WINDOW = 80  # pixels of a level that a face covers
_OVERLAP = 0.338  # intersection over union at which the weaker of two boxes is dropped
_BETWEEN, _AROUND = 10, 11  # pixels between levels, and around all
_LOWEST = 5  # pixels of the height of a level
_LEAST = 0.3  # score of a face; almost all have more than 0.8
_CANDIDATE = -0.4  # score of the approximation from which the network is used
_SAME = 0.25  # intersection over union at which two candidates are one
_REACH = 2  # windows on each side of a candidate that are searched
_LEVELS = 3  # searched for a candidate, about
# A larger image is searched in parts, which bounds the memory. Faces of up to half a part are found in one.
_PART_PIXELS = 4_000_000
_PART = 1600

Planes = NDArray[np.float32]  # (1, 3, height, width), without the mean
Place = NDArray[np.int64]  # (2,): x, y
Box = NDArray[np.float64]  # (5,): left, top, right, bottom, score
Boxes = NDArray[np.float64]  # (n, 5): rows of Box


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


def find_faces(image: Image.Image, smallest: float) -> list[Face]:
    """Find the faces from a size in pixels up, about, the largest first; upright image, mode L or RGB."""
    finder = models.finder()
    color = image if image.mode == "RGB" else image.convert("RGB")
    boxes = suppress(np.concatenate(list(_search(finder, color, smallest))))
    if not len(boxes):
        return []
    boxes = boxes[np.argsort(boxes[:, 0] - boxes[:, 2], kind="stable")]
    corners = np.rint(boxes[:, :4]).astype(int)
    points = predict(finder.predictor, image, corners)
    return [
        Face((left, top, right, bottom), float(score), landmarks)
        for (left, top, right, bottom), score, landmarks in zip(corners.tolist(), boxes[:, 4], points)
    ]


def suppress(boxes: Boxes, overlap: float = _OVERLAP) -> Boxes:
    """Return the boxes that overlap no box with a higher score, best first."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index, box in enumerate(boxes):
        low, high = np.maximum(box[:2], boxes[kept, :2]), np.minimum(box[2:4], boxes[kept, 2:4])
        common = np.prod((high - low).clip(0), axis=1)
        if not (common > overlap * (areas[index] + areas[kept] - common)).any():
            kept.append(index)
    return boxes[kept]


def _search(finder: models.Finder, image: Image.Image, smallest: float) -> Iterator[Boxes]:
    """Yield boxes in an image; those in the overlap of two parts come twice."""
    scale = WINDOW / smallest
    if image.width * image.height * scale**2 <= _PART_PIXELS:
        yield _boxes(finder, image, scale)
        return
    yield from _search(finder, image, 2 * smallest)
    part = round(_PART / scale)
    for top in range(0, image.height, part // 2):
        for left in range(0, image.width, part // 2):
            corner = min(left + part, image.width), min(top + part, image.height)
            found = _boxes(finder, image.crop((left, top, *corner)), scale)
            yield found + np.array([left, top, left, top, 0])
            if corner[0] == image.width:
                break
        if corner[1] == image.height:
            break


def _boxes(finder: models.Finder, image: Image.Image, scale: float) -> Boxes:
    """Return boxes in pixels of an image that is scaled first.

    A fast approximation of the network searches every third level of the pyramid, where each face has a
    score, too, if often a low one. The network itself searches around these places, or all levels if that
    takes less time.
    """
    size = round(image.width * scale), round(image.height * scale)
    if min(size) < WINDOW // 2:  # no face fits
        return np.empty((0, 5))
    pyramid = _Pyramid(finder, image, size)
    most = np.prod(pyramid.end) / (_LEVELS * pyramid.side**2)
    if most >= 2:
        found = [np.empty((0, 5)), *(pyramid.scan(level) for level in range(1, pyramid.count, 3))]
        candidates = suppress(np.concatenate(found), _SAME)
        if len(candidates) <= most:
            boxes = np.array([pyramid.inspect(box) for box in candidates]).reshape(-1, 5)
            return boxes[boxes[:, 4] >= _LEAST]
    return pyramid.search()


class _Pyramid:
    """Levels of an RGB image on one canvas, made when they are needed; the first has a given size."""

    def __init__(self, finder: models.Finder, image: Image.Image, size: tuple[int, int]) -> None:
        self.finder, self.size = finder, np.array(image.size)
        sizes, places = arrange(*size)
        self.sizes, self.places = np.array(sizes), np.array(places)
        self.count = int(sum(self.sizes.min(1) >= WINDOW // 2))  # no face fits into smaller levels
        self.end = (self.places + self.sizes).max(0) + _AROUND
        self.side = finder.field + 2 * _REACH * finder.step  # of the pixels on which `_nearest` rests
        if image.width > size[0]:
            image = image.resize(size, Image.Resampling.BILINEAR)
        self.image: Planes = np.asarray(image).transpose(2, 0, 1)[None].astype(np.float32, order="C")
        self.image -= np.array(finder.mean, np.float32)[:, None, None]
        self.levels: dict[int, Planes] = {}

    def level(self, number: int) -> Planes:
        """Return a level, made from the level before or, if that is larger than the image, from the image."""
        if number not in self.levels:
            width, height = self.sizes[number].tolist()
            smaller = number and self.sizes[number - 1][0] <= self.image.shape[3]
            source = self.level(number - 1) if smaller else self.image
            if source.shape[2:] != (height, width):
                feed = {"planes": source, "size": np.array([1, 3, height, width])}
                source = self.finder.resize.run(None, feed)[0]
            self.levels[number] = source
        return self.levels[number]

    def scan(self, level: int) -> Boxes:
        """Return the candidates of a level."""
        start, end = self.places[level] - _BETWEEN, self.places[level] + self.sizes[level] + _BETWEEN
        return self._boxes(self._scores(self.finder.scan, start, end), start, _CANDIDATE, level)

    def inspect(self, box: Box) -> Box:
        """Return the window of the highest score near a candidate, in its level and in those beside it."""
        first = int(np.abs(self.size[0] * WINDOW / self.sizes[:, 0] - (box[2] - box[0])).argmin())
        ends = [self._nearest(first, box)]
        for side in (-1, 1):
            level, best = first, ends[0]
            while level + side in range(self.count):
                found = self._nearest(level + side, best)
                if found[4] <= best[4]:
                    break
                level, best = level + side, found
            ends.append(best)
        return max(ends, key=lambda window: float(window[4]))

    def _nearest(self, level: int, box: Box) -> Box:
        """Return the window of the highest score in a level near the middle of a box."""
        step, origin = self.finder.step, self.finder.origin
        middle = (box[:2] + box[2:4]) / 2 * self.sizes[level] / self.size - 0.5
        middle = middle.clip(0, self.sizes[level]) + self.places[level]
        first = (np.rint((middle - origin) / step).astype(int) - _REACH).clip(0)
        center = (first + _REACH) * step + origin
        start = (center - self.side // 2).clip(0)
        x, y = first - start // step
        scores = self._scores(self.finder.inspect, start, center + self.side // 2 + 1)
        near = scores[y : y + 2 * _REACH + 1, x : x + 2 * _REACH + 1]
        best: Box = self._boxes(near, first * step, near.max(), level)[0]
        return best

    def search(self) -> Boxes:
        """Return the windows of all levels with a sufficient score."""
        start = np.zeros(2, int)
        return self._boxes(self._scores(self.finder.inspect, start, self.end), start, _LEAST)

    def _scores(self, session: Any, start: Place, end: Place) -> NDArray[np.float32]:
        """Return the scores of a network for a part of the canvas, from pixel (x, y) `start` to `end`."""
        end = np.minimum(end, self.end)
        part = np.zeros((1, 3, *(end - start)[::-1]), np.float32)
        low, high = np.maximum(self.places, start), np.minimum(self.places + self.sizes, end)
        for number in np.nonzero((low < high).all(1))[0].tolist():
            (left, top), (right, bottom) = low[number] - start, high[number] - start
            (x, y), (x_end, y_end) = low[number] - self.places[number], high[number] - self.places[number]
            part[..., top:bottom, left:right] = self.level(number)[..., y:y_end, x:x_end]
        scores: NDArray[np.float32] = session.run(None, {"planes": part})[0][0, 0]
        return scores

    def _boxes(
        self, scores: NDArray[np.float32], start: Place, least: float, level: int | None = None
    ) -> Boxes:
        """Return the windows from a score up, in a part of the canvas that starts at a pixel."""
        rows, columns = np.nonzero(scores >= least)
        centers = np.stack([columns, rows], 1) * self.finder.step + self.finder.origin + start
        low, high = self.places, self.places + self.sizes
        if level is None:  # that is nearest to the center of a window
            outside = np.maximum(low - centers[:, None], centers[:, None] - high).max(2)
            level = outside.clip(0).argmin(1)
        ratio = self.size / self.sizes[level]
        centers, half = (centers - low[level] + 0.5) * ratio, WINDOW / 2 * ratio
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
