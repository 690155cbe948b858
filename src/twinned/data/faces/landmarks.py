"""Find five landmarks of a face with a cascade of regression trees, and align the face by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..images import Pixels
from .dat_file import ShapePredictor

Points = NDArray[np.float64]

# Landmarks of the average face, relative to its box (dlib/image_transforms/interpolation.h): outer and inner
# corner of the left eye (on the right side of the image), of the right eye, and the point below the nose.
AVERAGE_FACE = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)
PADDING = 0.25  # margin on each side of the average face, relative to its size


def similarity(source: Points, target: Points) -> tuple[Points, Points]:
    """Fit the rotation with scale and the shift that map points ``(..., n, 2)`` to others with least error.

    ``target = source @ matrix.T + shift``; shapes ``(..., 2, 2)`` and ``(..., 2)``. Source: Umeyama,
    Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    center, target_center = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    x, y = source - center, target - target_center
    length = (x**2).sum((-2, -1))
    cosine = (x * y).sum((-2, -1)) / length
    sine = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(-1) / length
    matrix = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    shift = target_center - center @ np.swapaxes(matrix, -1, -2)
    return matrix, shift[..., 0, :]


def predict(predictor: ShapePredictor, image: Image.Image, boxes: NDArray[Any]) -> Points:
    """Find the landmarks (x, y) of faces, ``(n, points, 2)``, in their boxes, ``(n, 4)``; image: L or RGB."""
    pixels = np.asarray(image)
    corners = np.asarray(boxes, np.float64)
    origin, size = corners[:, None, :2], corners[:, None, 2:] - corners[:, None, :2] - 1
    mean = predictor.shape.astype(np.float64)
    shapes = np.broadcast_to(mean, (len(corners), *mean.shape)).copy()
    for level in range(len(predictor.first)):
        matrix, _ = similarity(np.broadcast_to(mean, shapes.shape), shapes)
        places = predictor.offsets[level] @ np.swapaxes(matrix, -1, -2)
        places += shapes.take(predictor.anchors[level], axis=1)
        features = _intensities(pixels, origin + places * size)
        shapes += _leaves(predictor, level, features).sum(1)
    return origin + shapes * size


def _intensities(pixels: Pixels, places: Points) -> NDArray[np.float32]:
    """Return the nearest pixels, the mean of their colors rounded down; 0 outside the image."""
    columns, rows = np.floor(places + 0.5).astype(np.intp).transpose(2, 0, 1)
    height, width = pixels.shape[:2]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
    found = pixels.reshape(height * width, -1).take(index, axis=0).astype(np.float32)
    if pixels.ndim == 3:  # adding the planes is faster than a sum over the last axis
        found = np.floor((found[..., 0] + found[..., 1] + found[..., 2]) / 3)
    return np.where(inside, found.reshape(inside.shape), 0).astype(np.float32)


def _leaves(predictor: ShapePredictor, level: int, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Follow all trees of a level for each row of features: ``(n, features) -> (n, trees, points, 2)``."""
    first, second = predictor.first[level], predictor.second[level]
    difference = features.take(first, axis=1) - features.take(second, axis=1)
    left = (difference > predictor.threshold[level]).reshape(-1)
    trees, splits = first.shape
    number = np.arange(len(features) * trees)  # arrays with one axis and `take` are the fastest
    node = np.zeros_like(number)
    for _ in range(splits.bit_length()):
        node = 2 * node + 2 - left.take(number * splits + node)
    leaf = number % trees * (splits + 1) + node - splits
    leaves = predictor.leaves[level].reshape(-1, *predictor.leaves.shape[3:])
    found: NDArray[np.float32] = leaves.take(leaf, axis=0).reshape(-1, trees, *leaves.shape[1:])
    return found


def align_chip(image: Image.Image, landmarks: Points, size: int, padding: float = PADDING) -> Image.Image:
    """Cut out a face so that its landmarks lie on those of the average face, as in `align`."""
    target = (AVERAGE_FACE + padding) / (1 + 2 * padding) * size
    matrix, shift = similarity(target, np.asarray(landmarks, np.float64))
    scale = float(np.hypot(*matrix[0]))  # pixels of the image per pixel of the result
    # As in dlib, the middle pixel, rounded up, is the middle of the square, and its sides are a pixel short.
    stretch = (size * scale - 1) / ((size - 1) * scale)
    shift = shift + matrix @ np.full(2, (size // 2) - stretch * (size - 1) / 2)
    matrix = matrix * stretch
    # Bilinear sampling of every k-th pixel would leave pixels out, so that the image is averaged first.
    if (factor := int(scale)) > 1:
        corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) @ matrix.T + shift
        low = np.floor(corners.min(0)).astype(int) - 2 * factor
        high = np.ceil(corners.max(0)).astype(int) + 2 * factor
        low, high = low.clip(0, image.size), high.clip(0, image.size)
        if (high <= low).any():
            return Image.new(image.mode, (size, size))
        image = image.reduce(factor, (*low.tolist(), *high.tolist()))
        # Center of pixel i of the reduced image: factor * (i + 0.5) - 0.5.
        shift = (shift - low + 0.5) / factor - 0.5
        matrix = matrix / factor
    # Pillow counts from the corner of a pixel, landmarks from its center.
    shift = shift + 0.5 - matrix @ (0.5, 0.5)
    rows = [(*matrix[axis].tolist(), float(shift[axis])) for axis in (0, 1)]
    return image.transform((size, size), Image.Transform.AFFINE, rows[0] + rows[1], Image.Resampling.BILINEAR)
