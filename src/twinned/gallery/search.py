"""Finding in a gallery: nearest records, prototypes, groups of near-duplicates, and the index's recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import distances
from .embedder import Embedder
from .store import (
    Filter,
    Found,
    IndexReport,
    Record,
    Store,
    Vectors,
)

PAGE = 2048  # records read together
_CANDIDATES = 50  # at least so many of the encoder's nearest are put before a learned head
_MEASURED = 100  # images searched for to measure the index


def pages(
    store: Store, only: Filter, *, vectors: bool = False, after: str | None = None
) -> Iterator[tuple[list[Record], Vectors]]:
    """All records that pass, in the order of their ids, with their embeddings if asked for."""
    while True:
        records, found, after = store.page(only, after=after, limit=PAGE, vectors=vectors)
        yield records, found
        if after is None:
            return


def nearest(
    store: Store, embedder: Embedder, queries: Vectors, k: int, only: Filter, *, exact: bool = False
) -> list[Found]:
    """The k nearest records of each query; a learned head re-orders the encoder's candidates."""
    head = embedder.rerank
    if head is None:
        return store.search(queries, k, only, exact=exact)
    candidates = store.search(queries, max(_CANDIDATES, 4 * k), only, exact=exact, vectors=True)
    answers = []
    for query, near in zip(queries, candidates):
        apart = np.asarray(head(query, near.vectors), np.float64) if near.records else near.distances
        order = np.argsort(apart, kind="stable")[:k]
        answers.append(Found([near.records[i] for i in order], apart[order], near.vectors[order]))
    return answers


class Prototypes:
    """The mean embedding of each label, kept until images of the label change.

    Args:
        store: Where the embeddings are.
        embedder: The model.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store, self._embedder = store, embedder
        self._kept: dict[str, tuple[int, Vectors]] = {}  # label -> images, mean
        self._changes = 0

    def forget(self, labels: Iterable[str | None]) -> None:
        """Images of these labels have changed."""
        self._changes += 1
        for label in labels:
            self._kept.pop(label or "", None)

    def closest(
        self, queries: Vectors, only: Filter, counts: Mapping[str, int]
    ) -> tuple[list[str], NDArray[np.float64]]:
        """The label with the closest prototype for each query, and its distance, shape ``(n,)``.

        Args:
            queries: Embeddings, shape ``(n, d)``.
            only: Which images the prototypes are made of.
            counts: How many of them each label has.
        """
        means = self._means(only, counts)
        if not means:  # another thread has removed the last image since they were counted
            return [""] * len(queries), np.full(len(queries), np.inf)
        labels, prototypes = list(means), np.stack(list(means.values()))
        apart = np.asarray(
            distances.get(self._embedder.distance)(queries, prototypes, pairwise=True), np.float64
        )
        if head := self._embedder.rerank:
            near = np.argsort(apart, axis=1)[:, :_CANDIDATES]
            apart = np.full_like(apart, np.inf)
            for row, query in enumerate(queries):
                apart[row, near[row]] = head(query, prototypes[near[row]])
        best = apart.argmin(axis=1)
        return [labels[i] for i in best], apart[np.arange(len(best)), best]

    def _means(self, only: Filter, counts: Mapping[str, int]) -> dict[str, Vectors]:
        whole = only.labels is None and not only.where
        kept = dict(self._kept) if whole else {}
        # Another client of the same server may have added or removed images: the number tells.
        stale = {label: count for label, count in counts.items() if kept.get(label, (0,))[0] != count}
        if stale:
            before = self._changes
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
            if whole and before == self._changes:
                self._kept |= fresh
        return {label: kept[label][1] for label in counts if label in kept}


def near_duplicates(store: Store, embedder: Embedder, within: float) -> list[list[Record]]:
    """Groups of images that distances of at most ``within`` link, largest first."""
    everything = store.count(Filter())
    towards: dict[str, str] = {}  # union-find: id -> an id nearer to its group's root
    linked: dict[str, Record] = {}

    def root(id: str) -> str:
        while towards.setdefault(id, id) != id:
            towards[id] = towards[towards[id]]
            id = towards[id]
        return id

    for records, vectors in pages(store, Filter(), vectors=True):
        rows, k = np.arange(len(records)), 8
        while rows.size:
            found = nearest(store, embedder, vectors[rows], k, Filter())
            for row, near in zip(rows, found):
                one = records[row]
                for other in (near.records[i] for i in np.flatnonzero(near.distances <= within)):
                    if other.id != one.id:
                        linked |= {one.id: one, other.id: other}
                        towards[root(other.id)] = root(one.id)
            # Where all k are that close there may be more.
            full = [len(near.records) == k < everything and near.distances[-1] <= within for near in found]
            rows, k = rows[full], 4 * k
    groups: dict[str, list[Record]] = {}
    for id in sorted(linked):
        groups.setdefault(root(id), []).append(linked[id])
    return sorted(groups.values(), key=len, reverse=True)


def measure_index(store: Store) -> IndexReport:
    """Search for some stored images, themselves left out, through the index and exactly."""
    probes, queries, _ = store.page(Filter(), after=None, limit=_MEASURED, vectors=True)
    ways = [store.search(queries, 11, Filter(), exact=exact) for exact in (False, True)]
    recall = []
    for probe, *found in zip(probes, *ways):
        by_index, exactly = (
            [d for record, d in zip(one.records, one.distances) if record.id != probe.id][:10]
            for one in found
        )
        # Of two that are equally far either is right.
        recall.append(np.mean(np.array(by_index) <= exactly[-1] + 1e-6))
    return IndexReport(recall_at_10=float(np.mean(recall)), queries=len(probes), count=store.count(Filter()))
