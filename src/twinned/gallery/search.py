"""Queries over a gallery: nearest records, prototypes, near-duplicate groups, and the recall of the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import distances
from ..errors import SettingError
from .qdrant import Store
from .results import Hit
from .store import Embedder, Filter, Found, IndexReport, Record, Vectors

PAGE = 2048  # records read together
_CANDIDATES = 50  # minimum number of the encoder's nearest that a learned head reorders
_MEASURED = 100  # queries for measuring the index


def pages(
    store: Store, only: Filter, *, vectors: bool = False, after: str | None = None
) -> Iterator[tuple[list[Record], Vectors]]:
    """Yield all records that pass, in the order of their ids, with their embeddings if requested."""
    while True:
        records, found, after = store.page(only, after=after, limit=PAGE, vectors=vectors)
        yield records, found
        if after is None:
            return


def nearest(
    store: Store, embedder: Embedder, queries: Vectors, k: int, only: Filter, *, exact: bool = False
) -> list[Found]:
    """Find the k nearest records of each query; a learned head reorders the encoder's candidates."""
    head = embedder.rerank
    if head is None:
        return store.search(queries, k, only, exact=exact)
    candidates = store.search(queries, max(_CANDIDATES, 4 * k), only, exact=exact, vectors=True)
    answers = []
    for query, near in zip(queries, candidates):
        distance = np.asarray(head(query, near.vectors), np.float64) if near.records else near.distances
        order = np.argsort(distance, kind="stable")[:k]
        answers.append(Found([near.records[i] for i in order], distance[order], near.vectors[order]))
    return answers


class LabelSearch:
    """Search for the closest label. Mean embeddings of labels are cached until their images change."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store, self._embedder = store, embedder
        self._kept: dict[str, tuple[int, Vectors]] = {}  # label -> number of images, mean embedding
        self.changes = 0

    def forget(self, labels: Iterable[str | None]) -> None:
        """Drop the cached means of labels whose images have changed."""
        self.changes += 1
        for label in labels:
            self._kept.pop(label or "", None)

    def closest(
        self, queries: Vectors, only: Filter, counts: Mapping[str, int]
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Return the closest label of each query, and its distance, shape ``(n,)``.

        The model prefers mean embeddings or nearest images; ``counts`` is the number of images of each label
        that pass the filter. If all have been removed since they were counted, the distance is infinite.
        """
        if not self._embedder.prototype:
            if self._store.count(only) > sum(counts.values()):
                only = replace(only, labeled=True)
            found = nearest(self._store, self._embedder, queries, 1, only)
            labels = [one.records[0].label or "" if one.records else "" for one in found]
            return labels, np.array([one.distances[0] if one.records else np.inf for one in found])
        means = self._means(only, counts)
        if not means:
            return [""] * len(queries), np.full(len(queries), np.inf)
        labels, prototypes = list(means), np.stack(list(means.values()))
        distance = np.asarray(
            distances.get(self._embedder.distance)(queries, prototypes, pairwise=True), np.float64
        )
        if head := self._embedder.rerank:
            candidates = np.argsort(distance, axis=1)[:, :_CANDIDATES]
            distance = np.full_like(distance, np.inf)
            for row, (query, places) in enumerate(zip(queries, candidates)):
                distance[row, places] = head(query, prototypes[places])
        best = distance.argmin(axis=1)
        return [labels[i] for i in best], distance[np.arange(len(best)), best]

    def _means(self, only: Filter, counts: Mapping[str, int]) -> dict[str, Vectors]:
        whole = only.labels is None and not only.where
        kept = dict(self._kept) if whole else {}
        # Another client of the same server may have added or removed images; then the count differs.
        stale = {label: count for label, count in counts.items() if kept.get(label, (0,))[0] != count}
        if stale:
            before = self.changes
            scope = only if len(stale) == len(counts) else replace(only, labels=tuple(stale))
            sums = {label: np.zeros(self._embedder.embedding_size) for label in stale}
            seen = Counter[str]()
            for records, vectors in pages(self._store, scope, vectors=True):
                for record, vector in zip(records, vectors):
                    if record.label in sums:
                        sums[record.label] += vector
                        seen[record.label] += 1
            fresh = {label: (n, (sums[label] / n).astype(np.float32)) for label, n in seen.items()}
            kept |= fresh
            if whole and before == self.changes:
                self._kept |= fresh
        return {label: kept[label][1] for label in counts if label in kept}


def near_duplicates(store: Store, embedder: Embedder, within: float) -> list[list[Hit]]:
    """Group images linked by distances of at most ``within``; see `Gallery.duplicates`."""
    if not within >= 0:
        raise SettingError(f"within must be 0 or more; got {within:g}")
    everything = store.count(Filter())
    parents: dict[str, str] = {}  # union-find
    linked: dict[str, Record] = {}
    closest: dict[str, float] = {}

    def root(id: str) -> str:
        while parents.setdefault(id, id) != id:
            parents[id] = parents[parents[id]]
            id = parents[id]
        return id

    for records, vectors in pages(store, Filter(), vectors=True):
        rows, k = np.arange(len(records)), 8
        while rows.size:
            found = nearest(store, embedder, vectors[rows], k, Filter())
            for row, near in zip(rows, found):
                one = records[row]
                for other, distance in zip(near.records, near.distances.tolist()):
                    if distance <= within and other.id != one.id:
                        linked |= {one.id: one, other.id: other}
                        parents[root(other.id)] = root(one.id)
                        for id in (one.id, other.id):
                            closest[id] = min(distance, closest.get(id, distance))
            # If all k results are within the distance, there may be more.
            full = [len(near.records) == k < everything and near.distances[-1] <= within for near in found]
            rows, k = rows[full], 4 * k
    groups: dict[str, list[Hit]] = {}
    for id, record in sorted(linked.items()):
        groups.setdefault(root(id), []).append(Hit(**vars(record), distance=closest[id]))
    return sorted(groups.values(), key=len, reverse=True)


def measure_index(store: Store) -> IndexReport:
    """Compare searches through the index with exact ones, using stored images as queries."""
    probes, queries, _ = store.page(Filter(), after=None, limit=_MEASURED, vectors=True)
    both = [store.search(queries, 11, Filter(), exact=exact) for exact in (False, True)]
    recall = []
    for probe, *found in zip(probes, *both):
        by_index, exactly = (
            [d for record, d in zip(one.records, one.distances) if record.id != probe.id][:10]
            for one in found
        )
        # Either of two images at equal distance is correct.
        recall.append(np.mean(np.array(by_index) <= exactly[-1] + 1e-6))
    return IndexReport(recall_at_10=float(np.mean(recall)), queries=len(probes), count=store.count(Filter()))
