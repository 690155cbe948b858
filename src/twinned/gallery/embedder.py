"""What a gallery asks of a model; `twinned.inference.model.Model` offers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from ..data.images import Pixels
from ..data.preprocessing import ImageSpec
from .store import Binding, Vectors


class Embedder(Protocol):
    """A model, as a gallery sees it."""

    @property
    def spec(self) -> ImageSpec:
        """How an image is opened."""

    @property
    def encoder_sha256(self) -> str:
        """Of the encoder's ONNX file: a gallery is bound to it."""

    @property
    def embedding_size(self) -> int:
        """Values an embedding."""

    @property
    def distance(self) -> str:
        """The encoder's distance, one of `twinned.distances.DISTANCES`."""

    @property
    def threshold(self) -> float:
        """For one comparison, in the units of the model's distance (the head's, if it has one)."""

    @property
    def prototype(self) -> bool:
        """Whether a label is best represented by the mean of its embeddings, or by its nearest image."""

    @property
    def rerank(self) -> Callable[[Vectors, Vectors], NDArray[Any]] | None:
        """A learned head: distances of an embedding ``(d,)`` to candidates ``(n, d)``, shape ``(n,)``."""

    def embed_pixels(self, pixels: Pixels, /) -> Vectors:
        """Embeddings ``(n, d)`` of opened images, uint8 ``(n, height, width, channels)``."""

    def probability(self, distance: NDArray[Any], /) -> NDArray[Any]:
        """Calibrated P(same) of distances."""

    def identification_threshold(self, labels: int, fpir: float, *, images_per_label: float) -> float:
        """The distance within which a stranger comes near any of so many labels at the rate ``fpir``."""


def binding_of(embedder: Embedder) -> Binding:
    """What a gallery of this model is bound to."""
    return Binding.model_validate(
        {name: getattr(embedder, name) for name in ("encoder_sha256", "embedding_size", "distance")}
    )
