"""Landmarks against a plain loop, and alignment against a known transform."""

from __future__ import annotations

import dat_writer as dat
import numpy as np
import pytest
from PIL import Image

from twinned.data.faces.dat_file import ShapePredictor, read_shape_predictor
from twinned.data.faces.landmarks import AVERAGE_FACE, PADDING, align_chip, predict, similarity


def image(seed: int = 0, size: tuple[int, int] = (60, 50)) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def test_similarity_recovers_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 5, 2))
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -2.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, offset = similarity(points, points @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.broadcast_to(turn, (4, 2, 2)), atol=1e-12)
    np.testing.assert_allclose(offset, np.broadcast_to(shift, (4, 2)), atol=1e-12)


def slow(predictor: ShapePredictor, pixels: np.ndarray, box: list[int]) -> np.ndarray:
    """Evaluate the trees one by one."""
    origin, size = np.array(box[:2], float), np.array(box[2:], float) - box[:2] - 1
    shape = predictor.shape.astype(float).copy()
    for level, anchors in enumerate(predictor.anchors):
        matrix, _ = similarity(predictor.shape.astype(float), shape)
        values = []
        for anchor, offset in zip(anchors, predictor.offsets[level], strict=True):
            x, y = np.floor(origin + (matrix @ offset + shape[anchor]) * size + 0.5).astype(int)
            inside = 0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]
            values.append(float(pixels[y, x].astype(int).sum() // 3) if inside else 0.0)
        moved = np.zeros_like(shape)
        for tree in range(len(predictor.first[level])):
            node, splits = 0, len(predictor.first[level, tree])
            while node < splits:
                one, other = predictor.first[level, tree, node], predictor.second[level, tree, node]
                left = values[one] - values[other] > predictor.threshold[level, tree, node]
                node = 2 * node + (1 if left else 2)
            moved += predictor.leaves[level, tree, node - splits]
        shape += moved
    return origin + shape * size


def test_landmarks_equal_a_plain_loop() -> None:
    predictor = read_shape_predictor(dat.predictor(trees=4, features=9), "x")
    # Leaves between 0 and 1 would move the points outside the image.
    predictor = predictor._replace(leaves=(predictor.leaves - 0.5) / 20)
    boxes = [[5, 5, 45, 45], [-4, 10, 30, 44], [30, 20, 70, 60]]
    found = predict(predictor, image(), np.array(boxes))
    for box, points in zip(boxes, found, strict=True):
        np.testing.assert_allclose(points, slow(predictor, np.asarray(image()), box), atol=1e-4)


@pytest.mark.parametrize("scale", [0.7, 1.0, 3.3])
def test_alignment_moves_landmarks_to_the_average_face(scale: float) -> None:
    """Blobs at the landmarks of a rotated face move to the average landmarks."""
    angle, side = 0.3, 100 * scale
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (AVERAGE_FACE - 0.5) * side @ turn.T + (280, 240)
    rows, columns = np.mgrid[:480, :560]
    blobs = sum(
        np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (3 * scale) ** 2)) for x, y in landmarks
    )
    photograph = Image.fromarray((255 * np.clip(blobs, 0, 1)).astype(np.uint8))
    chip = np.asarray(align_chip(photograph, landmarks, 150)).astype(float)
    for x, y in (AVERAGE_FACE + PADDING) / (1 + 2 * PADDING) * 150:
        near = chip[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7]
        center = np.array([np.average(grid, weights=near) for grid in np.mgrid[-6:7, -6:7]])
        np.testing.assert_allclose(center, [y - round(y), x - round(x)], atol=1.0)


def test_alignment_fills_outside_with_black() -> None:
    chip = align_chip(image(), AVERAGE_FACE * 500 + 1000, 32)
    assert not np.asarray(chip).any()
