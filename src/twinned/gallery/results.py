"""What a gallery answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ImageError
from .store import Record, Value, Vectors


@dataclass(frozen=True)
class Hit:
    """One enrolled image that a search found.

    Args:
        id: Of the record.
        image: Absolute path of its file, or None.
        label: Its class, or None.
        distance: To the probe: lower is closer; the learned head's where the model has one.
        metadata: What was given with it.
    """

    id: str
    image: str | None
    label: str | None
    distance: float
    metadata: Mapping[str, Value]

    def to_json(self) -> dict[str, Any]:
        """What the command line prints."""
        return {"image": self.image, "label": self.label, "distance": self.distance}


@dataclass(frozen=True)
class Identification:
    """Who or what an image shows.

    Args:
        image: The path that was given, or what was given.
        label: The closest label, or None: nobody in the gallery is within the threshold.
        probability: Calibrated P(same) of the image and the closest label, in [0, 1].
        distance: To the closest label; infinite in an empty gallery.
        threshold: Of this gallery, for the rate of false identifications that was asked for.
    """

    image: str
    label: str | None
    probability: float
    distance: float
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """What the command line prints; an infinite distance is null."""
        return {
            "image": self.image,
            "label": self.label,
            "probability": self.probability,
            "distance": self.distance if np.isfinite(self.distance) else None,
        }


@dataclass(frozen=True)
class Page:
    """Some of a gallery's records, in the order of their ids.

    Args:
        count: How many pass the filter in all.
        items: The records of this page.
        after: Where the next page begins; None on the last one.
    """

    count: int
    items: list[Record]
    after: str | None

    def to_json(self) -> dict[str, Any]:
        """What the command line prints."""
        items = [{"id": item.id, "label": item.label, "image": item.image} for item in self.items]
        return {"count": self.count, "items": items}


@dataclass(frozen=True)
class Added:
    """What became of images that were added.

    Args:
        ids: Of each image's record, in the order given; None where it could not be read.
        stored: How many are new.
        skipped: How many were there already.
        unreadable: One error for each image that was left out.
    """

    ids: list[str | None]
    stored: int
    skipped: int
    unreadable: list[ImageError]


@dataclass(frozen=True, eq=False)
class Removed:
    """What was removed; `Gallery.restore` brings it back.

    Args:
        items: The records.
        vectors: Their embeddings, shape ``(n, d)``.
    """

    items: list[Record]
    vectors: Vectors


@dataclass(frozen=True)
class Stats:
    """A gallery in figures.

    Args:
        address: Its folder, or its address on a server.
        count: Enrolled images.
        labels: Different labels.
        search: ``exact`` compares with all; ``hnsw`` walks an index.
        exact_below: So many images are always searched exactly.
        indexed: Images in the index; the others are compared one by one.
        recall_at_10: Measured when the index was built: the share of the true ten nearest it finds.
        distance: The model's distance.
        embedding_size: Values an embedding.
        encoder_sha256: The encoder that the gallery is bound to.
    """

    address: str
    count: int
    labels: int
    search: Literal["exact", "hnsw"]
    exact_below: int
    indexed: int
    recall_at_10: float | None
    distance: str
    embedding_size: int
    encoder_sha256: str

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)
