"""`Embedder`: the interface of a model for evaluation, calibration and explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .comparisons import Comparator, Floats

if TYPE_CHECKING:
    from ..data.preprocessing import ImageSpec


class Embedder(Comparator, Protocol):
    """Turns images into embeddings and measures distances between them."""

    @property
    def spec(self) -> ImageSpec:
        """Image preprocessing."""

    def embed_pixels(self, pixels: Any, /) -> Floats:
        """Embed decoded images: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""
