"""What a store of embeddings must do, and what its kinds share: records, filters, the binding, the index.

Both kinds keep one point an image: its embedding and the payload ``label``, ``image``, ``metadata`` and
``norm``. For the cosine distance Qdrant keeps unit vectors; ``norm`` gives back the embedding as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..errors import GalleryError, SettingError

Vectors: TypeAlias = NDArray[np.float32]
Value: TypeAlias = str | int | float | bool

# Below this many kilobytes of embeddings every search compares with all of them; above, HNSW is built.
# 25 MB are 50,000 embeddings of 128 values: 1.6 ms a query on two cores, the network itself costs more.
EXACT_BELOW_KB = 25_000
# A filter that leaves less than this is searched exactly as well.
FULL_SCAN_KB = 10_000
# Measured on 100,000 x 128 Omniglot pixels: recall@10 0.997 at a sixteenth of the exact query's time.
HNSW_LINKS = 16
HNSW_BUILD_WIDTH = 100
HNSW_SEARCH_WIDTH = 128
# The graph is walked over 8-bit copies, which halves the build time; twice the candidates are then
# compared as float32, so the distances are exact.
OVERSAMPLING = 2.0


class Binding(BaseModel):
    """What a gallery is bound to: only embeddings of one encoder can be compared.

    Args:
        encoder_sha256: Of the encoder's ONNX file.
        embedding_size: Values an embedding.
        distance: The model's distance.
    """

    model_config = ConfigDict(frozen=True)

    encoder_sha256: str
    embedding_size: int = Field(ge=1)
    distance: Literal["cosine", "euclidean", "squared_euclidean", "manhattan"]


class IndexReport(BaseModel):
    """How well the HNSW index finds what an exact search finds, measured when it was built.

    Args:
        recall_at_10: Share of the ten nearest that a search through the index returns.
        queries: Stored images that were searched for, themselves left out.
        count: Images in the gallery at that time.
    """

    model_config = ConfigDict(frozen=True)

    recall_at_10: float
    queries: int
    count: int


@dataclass(frozen=True)
class Record:
    """One enrolled image.

    Args:
        id: A UUID made from the pixels: the same image always has the same one.
        label: Its class, or None.
        image: Absolute path of the file it came from, or None if it was no file.
        metadata: What was given with it.
    """

    id: str
    label: str | None
    image: str | None
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """Which records take part; an empty one lets all pass.

    Args:
        labels: Only these labels.
        where: For each metadata key the values that pass.
        labelled: Only records with a label.
    """

    labels: tuple[str, ...] | None = None
    where: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    labelled: bool = False

    def __bool__(self) -> bool:
        return self.labels is not None or bool(self.where) or self.labelled


@dataclass(frozen=True, eq=False)
class Found:
    """What one search found, nearest first.

    Args:
        records: The records.
        distances: float64, shape ``(n,)``.
        vectors: Their embeddings, shape ``(n, d)``; empty if they were not asked for.
    """

    records: list[Record]
    distances: NDArray[np.float64]
    vectors: Vectors


class Store(Protocol):
    """A place for records and embeddings. What it has returned from writing is on disk."""

    @property
    def address(self) -> str:
        """Its folder, or its address on a server."""

    @property
    def binding(self) -> Binding:
        """What the gallery is bound to."""

    @property
    def report(self) -> IndexReport | None:
        """How well the index finds, measured when it was built."""

    @property
    def writing(self) -> AbstractContextManager[Any]:
        """Held while stored records are looked at and then changed; reading needs no lock."""

    def write(self, records: Sequence[Record], vectors: Vectors) -> None: ...

    def delete(self, ids: Sequence[str]) -> None: ...

    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        """Replace the payload's keys that are given."""

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Record], Vectors]:
        """The records of those ids that are stored, in no order, and their embeddings if asked for."""

    def page(
        self, only: Filter, *, after: str | None, limit: int, vectors: bool = False
    ) -> tuple[list[Record], Vectors, str | None]:
        """Records in the order of their ids from ``after`` on, and where the next page begins."""

    def count(self, only: Filter) -> int: ...

    def labels(self, only: Filter) -> dict[str, int]:
        """How many images each label has."""

    def search(
        self, queries: Vectors, k: int, only: Filter, *, exact: bool, vectors: bool = False
    ) -> list[Found]: ...

    def indexed(self) -> int:
        """How many embeddings are in the HNSW index."""

    def index_due(self) -> bool:
        """Whether so many are outside the index that `compact` pays."""

    def compact(self) -> None:
        """Drop what was deleted and build the index if the size calls for it."""

    def set_report(self, report: IndexReport | None) -> None: ...

    def check_process(self) -> None:
        """Refuse to work in a process that was forked after the store was opened.

        Raises:
            GalleryError: In such a process.
        """

    def close(self) -> None:
        """Let another process open the store; in a forked process, do nothing."""


def check_process(address: str, opened_by: int) -> None:
    """Refuse to work in another process than the one that opened a store.

    A forked process has the memory of its parent but not its threads, and shares its locks and connections.

    Raises:
        GalleryError: In another process.
    """
    if os.getpid() != opened_by:
        raise GalleryError(
            f"{address}: was opened in process {opened_by}, and this process ({os.getpid()}) was forked from "
            "it; an open gallery cannot be used across a fork: open the gallery in this process, and a "
            "folder only after the other process has closed it"
        )


def exact_below(binding: Binding) -> int:
    """So many images are always searched exactly."""
    return EXACT_BELOW_KB * 1024 // (4 * binding.embedding_size)


def payloads(records: Sequence[Record], vectors: Vectors) -> list[dict[str, Any]]:
    """What is kept beside each embedding."""
    norms = np.linalg.norm(vectors, axis=1).tolist()
    return [
        {"label": record.label, "image": record.image, "metadata": dict(record.metadata), "norm": norm}
        for record, norm in zip(records, norms)
    ]


def records(points: Sequence[Any]) -> list[Record]:
    """The records that `payloads` were made of."""
    return [Record(str(p.id), p.payload["label"], p.payload["image"], p.payload["metadata"]) for p in points]


def embeddings(points: Sequence[Any], binding: Binding) -> Vectors:
    """Embeddings of retrieved points as the encoder gave them, ``(n, d)``; ``(n, 0)`` if not asked for."""
    if points and points[0].vector is None:
        return np.empty((len(points), 0), np.float32)
    stored = np.array([point.vector for point in points], np.float32).reshape(-1, binding.embedding_size)
    if binding.distance != "cosine":
        return stored
    return stored * np.array([point.payload["norm"] for point in points], np.float32)[:, None]


def found(points: Sequence[Any], binding: Binding) -> Found:
    """What a search returned, in Twinned's distance: lower is closer, squared where the model squares."""
    score = np.array([point.score for point in points], np.float64)
    if binding.distance == "cosine":
        distances = np.clip(1 - score, 0, None)  # Qdrant's score is the similarity
    else:
        distances = score**2 if binding.distance == "squared_euclidean" else score
    return Found(records(points), distances, embeddings(points, binding))


def is_unicode(text: str) -> bool:
    """Whether text can be kept: half of a surrogate pair (JSON's "\\ud800", a file's broken name) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def metadata_path(key: str) -> str:
    """Where a metadata key lies in the payload.

    Raises:
        SettingError: If the key is one that Qdrant's paths cannot hold.
    """
    if not isinstance(key, str) or not key or '"' in key or "\\" in key or not is_unicode(key):
        raise SettingError(
            f'metadata key {key!r} cannot be used: a key is Unicode text that is not empty, without " and \\'
        )
    return f'metadata."{key}"'
