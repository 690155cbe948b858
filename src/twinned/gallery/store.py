"""Types of a gallery: records, filters, and the `Embedder` interface of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..data.images import Pixels
from ..data.preprocessing import ImageSpec
from ..errors import SettingError

Vectors: TypeAlias = NDArray[np.float32]
Value: TypeAlias = str | int | float | bool

# Below this many kilobytes of embeddings every search is exact; above it, an HNSW index is built.
# 25 MB are 50,000 embeddings of 128 values: 1.6 ms per query on two cores, less than the network takes.
EXACT_BELOW_KB = 25_000


class Binding(BaseModel):
    """Identity of the encoder that filled a gallery. Embeddings of different encoders cannot be compared."""

    model_config = ConfigDict(frozen=True)

    encoder_sha256: str
    embedding_size: int = Field(ge=1)
    distance: Literal["cosine", "euclidean", "squared_euclidean", "manhattan"]


class IndexReport(BaseModel):
    """Recall of the HNSW index, measured when it was built."""

    model_config = ConfigDict(frozen=True)

    recall_at_10: float  # fraction of the ten nearest images that a search through the index returns
    queries: int  # number of stored images used as queries; each was excluded from its own results
    count: int  # images in the gallery at that time


@dataclass(frozen=True)
class Record:
    """One enrolled image.

    Args:
        id: UUID computed from the pixels: the same image always has the same id.
        label: Class of the image, or None.
        image: Absolute path of the image file, or None if the image did not come from a file.
        metadata: Keys and values given when the image was enrolled.
    """

    id: str
    label: str | None
    image: str | None
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """Conditions on records. An empty filter accepts every record."""

    labels: tuple[str, ...] | None = None  # accepted labels, or None for all
    where: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)  # accepted values of each key
    labeled: bool = False  # accept only records with a label

    def __bool__(self) -> bool:
        return self.labels is not None or bool(self.where) or self.labeled


@dataclass(frozen=True, eq=False)
class Found:
    """Results of one search, nearest first."""

    records: list[Record]
    distances: NDArray[np.float64]  # (n,)
    vectors: Vectors  # (n, d); (n, 0) if not requested


class Embedder(Protocol):
    """Interface of a model to a gallery; `twinned.inference.model.Model` implements it."""

    @property
    def spec(self) -> ImageSpec:
        """Image preprocessing."""

    @property
    def encoder_sha256(self) -> str:
        """SHA-256 of the encoder's ONNX file; a gallery is bound to it."""

    @property
    def embedding_size(self) -> int:
        """Values per embedding."""

    @property
    def distance(self) -> str:
        """Distance of the encoder, one of `twinned.distances.DISTANCES`."""

    @property
    def near_duplicate(self) -> float:
        """Largest distance of near-duplicates, in units of the model's distance (its head's, if any)."""

    @property
    def prototype(self) -> bool:
        """True if the mean of its embeddings represents a label best; False for its nearest image."""

    @property
    def rerank(self) -> Callable[[Vectors, Vectors], NDArray[Any]] | None:
        """Learned head: distances of an embedding ``(d,)`` to candidates ``(n, d)``, shape ``(n,)``."""

    def embed_pixels(self, pixels: Pixels, /) -> Vectors:
        """Embed decoded images, uint8 ``(n, height, width, channels)``, to shape ``(n, d)``."""

    def probability(self, distance: NDArray[Any], /) -> NDArray[Any]:
        """Return the calibrated P(same) of distances."""

    def identification_threshold(self, labels: int, fpir: float, *, images_per_label: float) -> float:
        """Return the distance below which unknown probes match one of the labels at the rate ``fpir``."""


def binding_of(embedder: Embedder) -> Binding:
    """Return the binding of galleries of this model."""
    return Binding.model_validate(embedder, from_attributes=True)


def exact_below(binding: Binding) -> int:
    """Return the number of images below which every search is exact."""
    return EXACT_BELOW_KB * 1024 // (4 * binding.embedding_size)


def is_unicode(text: str) -> bool:
    r"""Return False if the text holds half of a surrogate pair (from JSON ``"\ud800"`` or a file name)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def metadata_path(key: str) -> str:
    """Return the payload path of a metadata key, if Qdrant's paths can express it."""
    if not isinstance(key, str) or not key or '"' in key or "\\" in key or not is_unicode(key):
        raise SettingError(
            f'metadata key {key!r} cannot be used. Use Unicode text that is not empty and has no " or \\'
        )
    return f'metadata."{key}"'
