"""The `Store` interface, and what its two Qdrant stores share: points, filters, reading and searching.

Each image is one point: its embedding and the payload ``label``, ``image``, ``metadata`` and ``norm``. Qdrant
normalizes vectors to unit length for the cosine distance; ``norm`` restores the original embedding.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import GalleryError
from .store import Binding, Filter, Found, IndexReport, Record, Value, Vectors, metadata_path

# A filter that leaves fewer kilobytes than this is searched exactly as well.
FULL_SCAN_KB = 10_000
# Measured on 100,000 x 128 Omniglot pixels: recall@10 0.997 in a sixteenth of the exact query's time.
HNSW_LINKS = 16
HNSW_BUILD_WIDTH = 100
HNSW_SEARCH_WIDTH = 128
# The graph is searched with 8-bit copies, which halves the build time. Twice the requested number of
# candidates are then compared in float32, so the distances are exact.
OVERSAMPLING = 2.0


class Api(NamedTuple):
    """Classes of a Qdrant library; the embedded one and the client differ in these."""

    types: Any  # module of the classes that both libraries name alike
    point: Callable[..., Any]
    interval: Callable[..., Any]  # range of numbers
    is_empty: Callable[[str], Any]  # condition that a payload key is empty
    nearest: Callable[[list[float]], Any] = lambda vector: vector  # query for the neighbors of a vector
    boolean: Callable[[bool], Any] = bool  # converts a boolean to a value to match


class Store(ABC):
    """Storage for records and embeddings: everything that does not depend on where Qdrant runs.

    Data is on disk (on a server: applied by every shard) when a method that writes returns. A change waits
    ``wait`` seconds for another one to end, or without limit.
    """

    api: ClassVar[Api]
    binding: Binding
    report: IndexReport | None

    def __init__(self, address: str, *, wait: float = -1) -> None:
        self.address = address
        self._process = os.getpid()
        self._lock, self._wait = threading.RLock(), wait

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for reading records and then changing them; reading alone needs no lock."""
        self.check_process()  # a forked child may have inherited it locked
        if not self._lock.acquire(timeout=self._wait):
            raise GalleryError(
                f"{self.address}: another change has been under way for {self._wait:g} seconds. Check that "
                "the Qdrant server is up and reachable"
            )
        try:
            yield
        finally:
            self._lock.release()

    @abstractmethod
    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Insert records, or replace those with the same id."""

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Delete records."""

    @abstractmethod
    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        """Replace the given keys of the payload; keep the others."""

    @abstractmethod
    def labels(self, only: Filter) -> dict[str, int]:
        """Count the images of each label."""

    @abstractmethod
    def indexed(self) -> int:
        """Count the embeddings in the HNSW index."""

    @abstractmethod
    def index_due(self) -> bool:
        """Return True if enough embeddings are outside the index for `compact` to pay."""

    @abstractmethod
    def compact(self) -> None:
        """Reclaim the space of deleted records and build the index if the size requires one."""

    @abstractmethod
    def set_report(self, report: IndexReport | None) -> None:
        """Store the recall of the index."""

    @abstractmethod
    def close(self) -> None:
        """Release the store for other processes; in a forked process, do nothing."""

    def check_process(self) -> None:
        """Check that this process opened the store: a forked one has its locks, but none of its threads."""
        if os.getpid() != self._process:
            raise GalleryError(
                f"{self.address}: was opened in process {self._process}, and this process ({os.getpid()}) "
                "was forked from it. Open the gallery in this process, after the other one has closed it"
            )

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Record], Vectors]:
        """Return the stored records among these ids, in any order, with their embeddings if requested."""
        with self._explain("reading"):
            points = self._retrieve(list(ids), vectors)
        return records(points), embeddings(points, self.binding)

    def page(
        self, only: Filter, *, after: str | None, limit: int, vectors: bool = False
    ) -> tuple[list[Record], Vectors, str | None]:
        """Return records in the order of their ids from ``after`` on, and the start of the next page."""
        with self._explain("reading"):
            points, following = self._scroll(self.filter(only), after, limit, vectors)
        return records(points), embeddings(points, self.binding), following and str(following)

    def count(self, only: Filter) -> int:
        """Count the records that pass the filter."""
        with self._explain("counting"):
            return int(self._count(self.filter(only)))

    def search(
        self, queries: Vectors, k: int, only: Filter, *, exact: bool, vectors: bool = False
    ) -> list[Found]:
        """Return the k nearest records of each query, by embedding."""
        types, condition = self.api.types, self.filter(only)
        parameters = types.SearchParams(
            exact=exact,
            hnsw_ef=max(HNSW_SEARCH_WIDTH, k),
            quantization=types.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
        )
        requests = [
            types.QueryRequest(
                query=self.api.nearest(query),
                limit=k,
                filter=condition,
                params=parameters,
                with_payload=True,
                with_vector=vectors,
            )
            for query in queries.tolist()
        ]
        with self._explain("searching"):
            answers = self._query(requests)
        return [found(points, self.binding) for points in answers]

    def filter(self, only: Filter) -> Any:
        """Convert a filter to Qdrant's; None for an empty one."""
        if not only:
            return None
        types = self.api.types
        must = []
        if only.labels is not None:
            must.append(types.FieldCondition(key="label", match=types.MatchAny(any=list(only.labels))))
        for key, values in only.where.items():
            path = metadata_path(key)
            must.append(types.Filter(should=[self._equals(path, value) for value in values]))
        return types.Filter(must=must, must_not=[self.api.is_empty("label")] if only.labeled else None)

    def _equals(self, path: str, value: Value) -> Any:
        types = self.api.types
        if isinstance(value, float):
            return types.FieldCondition(key=path, range=self.api.interval(gte=value, lte=value))
        match = self.api.boolean(value) if isinstance(value, bool) else value
        return types.FieldCondition(key=path, match=types.MatchValue(value=match))

    def _points(self, records: Sequence[Record], vectors: Vectors) -> list[Any]:
        norms = np.linalg.norm(vectors, axis=1).tolist()
        return [
            self.api.point(
                id=record.id,
                vector=vector,
                payload={
                    "label": record.label,
                    "image": record.image,
                    "metadata": dict(record.metadata),
                    "norm": norm,
                },
            )
            for record, vector, norm in zip(records, vectors.tolist(), norms)
        ]

    def _count_labels(self, only: Filter) -> dict[str, int]:
        limit = max(1, self.count(Filter()))
        with self._explain("counting labels"):
            hits = self._facet(self.filter(only), limit)
        return {str(hit.value): hit.count for hit in hits if hit.count}  # a deleted label remains, with 0

    @abstractmethod
    def _explain(self, doing: str) -> AbstractContextManager[None]:
        """Convert Qdrant's errors to `GalleryError`."""

    @abstractmethod
    def _retrieve(self, ids: list[str], vectors: bool) -> Sequence[Any]: ...

    @abstractmethod
    def _scroll(
        self, only: Any, after: str | None, limit: int, vectors: bool
    ) -> tuple[Sequence[Any], Any]: ...

    @abstractmethod
    def _count(self, only: Any) -> Any: ...

    @abstractmethod
    def _facet(self, only: Any, limit: int) -> Sequence[Any]: ...

    @abstractmethod
    def _query(self, requests: list[Any]) -> list[Sequence[Any]]: ...


def records(points: Sequence[Any]) -> list[Record]:
    """Convert points to records."""
    return [Record(str(p.id), p.payload["label"], p.payload["image"], p.payload["metadata"]) for p in points]


def embeddings(points: Sequence[Any], binding: Binding) -> Vectors:
    """Return the original embeddings of points, ``(n, d)``; ``(n, 0)`` if not requested."""
    if points and points[0].vector is None:
        return np.empty((len(points), 0), np.float32)
    stored = np.array([point.vector for point in points], np.float32).reshape(-1, binding.embedding_size)
    if binding.distance != "cosine":
        return stored
    return stored * np.array([point.payload["norm"] for point in points], np.float32)[:, None]


def found(points: Sequence[Any], binding: Binding) -> Found:
    """Convert the points of a search, and their scores to Twinned's distance: lower is closer."""
    score = np.array([point.score for point in points], np.float64)
    if binding.distance == "cosine":
        distances = np.clip(1 - score, 0, None)  # Qdrant's score is the similarity
    else:
        distances = score**2 if binding.distance == "squared_euclidean" else score
    return Found(records(points), distances, embeddings(points, binding))
