"""Model whose embedding is the first row of pixels, so that distances are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinned.data.preprocessing import ImageSpec

SIZE = 8


SPEC = ImageSpec(height=SIZE, width=SIZE, channels=1)


@dataclass
class FakeModel:
    distance: str = "euclidean"
    encoder_sha256: str = "a" * 64
    embedding_size: int = SIZE
    threshold: float = 1.0
    near_duplicate: float = 0.1
    prototype: bool = False
    rerank: Callable[..., Any] | None = None
    embedded: int = 0
    spec: ImageSpec = SPEC

    def embed_pixels(self, pixels):
        self.embedded += len(pixels)
        return pixels[:, 0, : self.embedding_size, 0].astype(np.float32) / 10

    def probability(self, distance):
        return 1 / (1 + np.asarray(distance, np.float64))

    def identification_threshold(self, labels, fpir=0.01, *, images_per_label=1.0):
        return self.threshold * fpir * 100 / (labels * images_per_label)


def image(*values: int, salt: int = 0) -> np.ndarray:
    """Return an image with the embedding ``values / 10``; `salt` changes other pixels only."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[0, : len(values)] = values
    pixels[1] = np.frombuffer(salt.to_bytes(SIZE, "big"), np.uint8)
    return pixels


def images(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Return different random images."""
    random = np.random.default_rng(seed)
    return [image(*random.integers(1, 256, SIZE), salt=number) for number in range(count)]


def vectors(images: list[np.ndarray]) -> np.ndarray:
    """Return the embeddings of images."""
    return np.stack(images)[:, 0].astype(np.float32) / 10
