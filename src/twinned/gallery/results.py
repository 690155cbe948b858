"""Result classes of a gallery."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..data.preprocessing import Box
from ..errors import ImageError
from .store import Record, Vectors


@dataclass(frozen=True, kw_only=True)
class Hit(Record):
    """Enrolled image found by a search, or one of a group of near-duplicates: a `Record` with its distance.

    Args:
        distance: Distance to the query, lower is closer; the learned head's if the model has one. Of a
            near-duplicate, the distance to the nearest other image of its group.
    """

    distance: float

    def to_json(self) -> dict[str, Any]:
        """Convert to the JSON object that the command line prints."""
        return {"image": self.image, "label": self.label, "distance": self.distance}


@dataclass(frozen=True)
class Identification:
    """Result of identifying one image.

    Args:
        image: Path of the image, or a description if it did not come from a file.
        label: Closest label, or None for unknown: no label is within the threshold.
        probability: Calibrated P(same) of the image and the closest label, in [0, 1].
        distance: Distance to the closest label; infinite in an empty gallery.
        threshold: Threshold for this gallery at the requested rate of false identifications.
        nearest: Closest label, within the threshold or not; None in an empty gallery.
        box: Box of the face, if every face of the image is identified: left, top, right, bottom in pixels of
            the upright image.
    """

    image: str
    label: str | None
    probability: float
    distance: float
    threshold: float
    nearest: str | None = None
    box: Box | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to the JSON object that the command line prints; an infinite distance becomes null."""
        found = {
            "probability": self.probability,
            "distance": self.distance if np.isfinite(self.distance) else None,
        }
        nearest = None if self.nearest is None else {"label": self.nearest, **found}
        answer = {"image": self.image, "label": self.label, **found, "nearest": nearest}
        return answer | {"threshold": self.threshold} | ({"box": self.box} if self.box else {})


@dataclass(frozen=True)
class Page:
    """One page of a gallery's records, in the order of their ids.

    Args:
        count: Number of records that pass the filter, on all pages.
        items: Records of this page.
        after: Start of the next page; None on the last page.
    """

    count: int
    items: list[Record]
    after: str | None

    def to_json(self) -> dict[str, Any]:
        """Convert to the JSON object that the command line prints."""
        items = [{"id": item.id, "label": item.label, "image": item.image} for item in self.items]
        return {"count": self.count, "items": items}


@dataclass(frozen=True)
class Added:
    """Result of adding images.

    Args:
        ids: Record id of each image, in the order given; None if it was skipped with an error.
        stored: Number of new images.
        skipped: Number of images that were stored before.
        unreadable: Error of each image that was skipped: it cannot be read, or shows no face that can be
            recognized.
    """

    ids: list[str | None]
    stored: int
    skipped: int
    unreadable: list[ImageError]


@dataclass(frozen=True, eq=False)
class Removed:
    """Removed records, which `Gallery.restore` can insert again.

    Args:
        items: The records.
        vectors: Embeddings of the records, shape ``(n, d)``.
    """

    items: list[Record]
    vectors: Vectors


@dataclass(frozen=True)
class Stats:
    """Statistics of a gallery.

    Args:
        address: Folder, or address on a server.
        count: Number of enrolled images.
        labels: Number of distinct labels.
        search: ``exact`` compares the query with every image; ``hnsw`` uses an index.
        exact_below: Number of images below which every search is exact.
        indexed: Number of images in the index; the others are compared one by one.
        recall_at_10: Fraction of the true ten nearest that the index finds, measured when it was built.
        distance: The model's distance.
        embedding_size: Values per embedding.
        encoder_sha256: SHA-256 of the encoder that the gallery is bound to.
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
        """Convert to a JSON object."""
        return asdict(self)
