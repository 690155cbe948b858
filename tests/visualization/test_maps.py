"""Maps of embeddings."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from twinned import plots
from twinned.errors import DataError, SettingError
from twinned.visualization.maps import _places, _separated


@pytest.fixture(scope="module")
def blobs():
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 15)
    centres = 4 * random.normal(size=(4, 16))
    return centres[label] + random.normal(size=(60, 16)), label


def test_project_keeps_neighbors_and_is_reproducible(blobs):
    vectors, label = blobs
    points = plots.project(vectors, seed=1)
    assert points.shape == (60, 2)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert np.mean(label[apart.argmin(axis=1)] == label) > 0.95
    assert np.array_equal(points, plots.project(vectors, seed=1))


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean", "manhattan"])
def test_project_with_few_images_and_any_distance(distance):
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    assert np.isfinite(plots.project(vectors, distance=distance)).all()
    assert np.isfinite(plots.project(np.ones((6, 1)), distance=distance)).all()


def test_project_refuses_invalid_arguments():
    with pytest.raises(DataError, match="at least 4 images; got 3"):
        plots.project(np.zeros((3, 2)))
    with pytest.raises(SettingError, match="tsne or umap"):
        plots.project(np.zeros((5, 2)), method="pca")
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(SettingError, match="pip install umap-learn"):
            plots.project(np.zeros((5, 2)), method="umap")


def test_map_labels_classes_seen_in_training():
    points = np.random.default_rng(0).normal(size=(40, 2))
    labels = [f"class {n % 4}" for n in range(40)]
    assert plots.embedding_map(points, labels).get_xlabel() == "40 images of 4 classes"
    never = plots.embedding_map(points, labels, seen=["other"])
    assert never.get_xlabel() == "40 images of 4 classes, none of them used in training"
    some = plots.embedding_map(points, labels, seen=["class 1"])
    assert some.get_xlabel().endswith("1 of them used in training (pale)")
    strength = [group.get_alpha() for group in some.collections]
    assert strength[1] < min(strength[0], *strength[2:])


def test_classes_differ_in_color_or_marker():
    points = np.random.default_rng(0).normal(size=(49, 2))
    ax = plots.embedding_map(points, list(range(49)))
    looks = {
        (group.get_facecolor().tobytes(), group.get_paths()[0].vertices.tobytes()) for group in ax.collections
    }
    assert len(looks) == 49


def test_thumbnails_do_not_overlap():
    random = np.random.default_rng(0)
    points = random.normal(size=(80, 2))
    images = list(random.integers(0, 256, (80, 12, 12), dtype=np.uint8))
    ax = plots.embedding_map(points, ["a"] * 80, images=images, thumbnails=30)
    boxes = np.array([image.get_extent() for image in ax.images])
    assert 10 < len(boxes) <= 30
    for k, (left, right, *_) in enumerate(boxes):
        low, high = sorted(boxes[k, 2:])
        for other in boxes[k + 1 :]:
            wide = min(right, other[1]) - max(left, other[0])
            assert not (wide > 0 and min(high, max(other[2:])) - max(low, min(other[2:])) > 0)


def test_thumbnails_cover_neither_points_nor_names():
    random = np.random.default_rng(0)
    clusters = np.repeat(10 * random.random((8, 2)) * (1, 0.86), 20, axis=0)
    points = clusters + random.normal(scale=0.05, size=clusters.shape)
    names = np.array([[5.0, 4.0, 9.0, 3.0]])
    found = _places(points, 100, names)
    assert len(found) > 8
    for row, place in found.items():
        assert (np.abs(points - place).max(axis=1) > 0.3).all()
        assert np.linalg.norm(place - points[row]) < 1.2
        assert (np.abs(place - names[0, :2]) >= (names[0, 2:] + 0.6) / 2).any()


def test_thumbnails_of_a_full_map_cover_few_points():
    points = np.random.default_rng(0).random((1000, 2)) * (10, 8.6)
    found = np.array([*_places(points, 120, np.empty((0, 4))).values()])
    assert 5 < len(found) <= 24
    hidden = (np.abs(points[:, None] - found).max(axis=2) < 0.3).any(axis=1)
    assert hidden.mean() <= 0.1


def test_names_are_moved_apart():
    spots, sizes = np.zeros((6, 2)), np.tile([2.0, 0.5], (6, 1))
    placed = _separated(spots, sizes)
    assert np.allclose(np.sort(placed[:, 1]), 0.5 * np.arange(6))
    assert np.array_equal(_separated(np.array([[0.0, 0], [9, 0]]), sizes[:2]), [[0, 0], [9, 0]])


def test_drawn_names_do_not_overlap():
    random = np.random.default_rng(0)
    names = [f"armenian-name {k:02}" for k in range(18)]
    ax = plots.embedding_map(random.normal(size=(54, 2)), names * 3)
    ax.figure.canvas.draw()
    drawn = [text for text in ax.texts if text.get_text() in names]
    boxes = [text.get_window_extent() for text in drawn]
    assert len(boxes) == 18
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


def test_names_are_not_math_text_and_sizes_must_match():
    ax = plots.embedding_map(np.eye(4)[:, :2], ["$\\frac", "b", "c", "d"])
    plots.png(ax)
    with pytest.raises(DataError, match="3 labels"):
        plots.embedding_map(np.zeros((4, 2)), ["a", "b", "c"])
    with pytest.raises(DataError, match="2 images"):
        plots.embedding_map(np.zeros((4, 2)), list("abcd"), images=[np.zeros((9, 9), np.uint8)] * 2)
