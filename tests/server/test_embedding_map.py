"""The map: PCA compared with a full decomposition, and t-SNE in the background."""

from __future__ import annotations

import time

import numpy as np
import pytest

from twinned.errors import GalleryError
from twinned.gallery.gallery import Gallery
from twinned.server import embedding_map
from twinned.server.embedding_map import GalleryMap, Maps, principal

from .conftest import png


@pytest.mark.parametrize("shape", [(900, 40), (40, 900)], ids=str)
@pytest.mark.parametrize("groups", [2, 40])
def test_principal_matches_a_full_decomposition(shape: tuple[int, int], groups: int) -> None:
    """On clustered vectors."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(groups, shape[1]))
    vectors = centres[random.integers(0, groups, shape[0])] + 0.5 * random.normal(size=shape)
    centred = vectors - vectors.mean(axis=0)
    places, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    expected = places[:, :2] * lengths[:2]
    found = principal(vectors.astype(np.float32))
    found *= np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=5e-3 * lengths[0] / np.sqrt(shape[0]))


def test_equal_points_have_coordinates() -> None:
    assert not principal(np.ones((10_000, 600), np.float32)).any()
    two = principal(np.repeat(np.eye(2, 600, dtype=np.float32), 50, axis=0))
    assert np.ptp(two[:50], axis=0).max() < 1e-5 < abs(two[0, 0] - two[-1, 0])


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (2, 5), (3, 5), (6, 1), (6, 2)])
def test_few_images_or_values_have_coordinates(shape: tuple[int, int]) -> None:
    points = principal(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def waited(made: Maps) -> GalleryMap:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = made.get("tsne")
        if found.ready:
            return found
        time.sleep(0.05)
    raise AssertionError("t-SNE never came")


def test_tsne_is_computed_in_the_background(gallery: Gallery) -> None:
    gallery.add([png("circle", s) for s in range(6)], "c", progress=False)
    made = Maps(lambda: gallery)
    first = made.get("tsne")
    assert (first.ready, first.ids) == (False, [])
    whole = waited(made)
    assert len(whole.ids) == 6
    gallery.rename("c", "circle")
    between = made.get("tsne")
    assert between.ready is False
    assert between.ids == whole.ids  # the previous map until the next one is ready
    assert waited(made).ready


def test_background_error_is_reported_once(gallery: Gallery, monkeypatch) -> None:
    def broken(self: Maps, vectors: object) -> None:
        raise GalleryError("the disk is gone")

    monkeypatch.setattr(embedding_map.Maps, "_by_neighbours", broken)
    made = Maps(lambda: gallery)
    assert made.get("tsne").ready is False
    while made._failed is None:
        time.sleep(0.01)
    with pytest.raises(GalleryError, match="the disk is gone"):
        made.get("tsne")
    assert made.get("tsne").ready is False
