"""Made-up embeddings: classes around centres, some wider than others."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from twinned.distances import euclidean
from twinned.metrics.comparisons import Comparisons, compare_all

World = Callable[..., Comparisons]


def embed(seed: int, classes: int, images: int, dimensions: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, dimensions))
    spread = 0.6 * np.exp(0.4 * random.normal(size=(classes, 1)))
    label = np.repeat(np.arange(classes), images)
    noise = random.normal(size=(len(label), dimensions))
    return (centres[label] + spread[label] * noise).astype(np.float32), label


@pytest.fixture
def world() -> World:
    def make(seed: int = 0, classes: int = 20, images: int = 5) -> Comparisons:
        return compare_all(*embed(seed, classes, images), partial(euclidean, pairwise=True))

    return make


@pytest.fixture
def made_up() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Embeddings and their labels, by seed, classes and images."""
    return embed
