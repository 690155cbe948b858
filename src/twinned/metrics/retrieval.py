"""Search: recall at k and mean average precision at R; false identification rates of an open set.

In retrieval, every image is a query against all the others. The only image of a class is not a query, but
stays among the images searched. **Ties are broken against the model**: at equal distance, images of other
classes come first, so an encoder that maps everything to one point scores 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..distances import all_pairs
from ..errors import DataError, SettingError
from ..utils.groups import members
from .bootstrap import Interval, mean_interval
from .comparisons import DistanceLike, Distances, Floats, Ints, Labels, as_vectors, labeled_vectors

_BLOCK_VALUES = 1 << 22  # distances computed at a time


@dataclass(frozen=True)
class Retrieval:
    """Recall at k and mean average precision at R, each with a 95 % interval from resampling classes.

    Args:
        recall_at: Share of queries with an image of their class among the k nearest, for each k.
        recall_at_ci: Intervals of `recall_at`.
        map_at_r: See `map_at_r`.
        map_at_r_ci: Interval of `map_at_r`.
        queries: Number of images with another image of their class.
        skipped: Number of images without.
        rank: Rank of the first hit of each query, from 1, shape ``(queries,)``.
        label: Class number of each query, a position in ``np.unique(labels)``.
    """

    recall_at: dict[int, float]
    recall_at_ci: dict[int, Interval | None]
    map_at_r: float
    map_at_r_ci: Interval | None
    queries: int
    skipped: int
    rank: Ints = field(compare=False, repr=False)
    label: Ints = field(compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values: ``recall_at_1``, ``recall_at_1_ci``, ..., ``map_at_r``."""
        figures: dict[str, Any] = {}
        for k, recall in self.recall_at.items():
            ci = self.recall_at_ci[k]
            figures |= {f"recall_at_{k}": recall, f"recall_at_{k}_ci": ci and list(ci)}
        figures |= {"map_at_r": self.map_at_r, "map_at_r_ci": self.map_at_r_ci and list(self.map_at_r_ci)}
        return figures | {"queries": self.queries, "skipped": self.skipped}


def evaluate_retrieval(
    embeddings: npt.ArrayLike,
    labels: Labels,
    distances: DistanceLike = "cosine",
    *,
    ks: Sequence[int] = (1, 5),
    seed: int = 0,
) -> Retrieval:
    """Search for every image among all the others: recall at k and MAP at R, with intervals.

    Args:
        embeddings: Shape ``(n, d)``.
        labels: Shape ``(n,)``.
        distances: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``; it
            is called on blocks of rows.
        ks: Values of k for recall at k.
        seed: Seed of the intervals.

    Raises:
        DataError: If no class has two images, the lengths differ, or a value is not finite.
        SettingError: If a k is below 1, or the name is not known.

    Example:
        >>> found = evaluate_retrieval([[0.0], [0.1], [5.0], [0.3]], "aabb", "euclidean")
        >>> found.recall_at, found.map_at_r
        ({1: 0.75, 5: 1.0}, 0.75)
    """
    if any(k < 1 for k in ks):
        raise SettingError(f"Recall at k needs k of at least 1; got {list(ks)}")
    vectors, label = labeled_vectors(embeddings, labels)
    query, first, precision = _search(vectors, label, all_pairs(distances))
    found = {k: first <= k for k in ks}
    return Retrieval(
        recall_at={k: float(hit.mean()) for k, hit in found.items()},
        recall_at_ci={k: mean_interval(hit, label[query], seed=seed) for k, hit in found.items()},
        map_at_r=float(precision.mean()),
        map_at_r_ci=mean_interval(precision, label[query], seed=seed),
        queries=len(query),
        skipped=len(label) - len(query),
        rank=first,
        label=label[query],
    )


def recall_at_k(
    embeddings: npt.ArrayLike, labels: Labels, ks: Sequence[int] = (1, 5), distance: DistanceLike = "cosine"
) -> dict[int, float]:
    """Return the share of queries with an image of their class among the ``k`` nearest, for each k.

    Every image with another one of its class is a query; it is searched for among all other images. Ties
    count against the model. `evaluate_retrieval` also returns intervals.

    Args:
        embeddings: Shape ``(n, d)``; an array or a torch tensor.
        labels: Shape ``(n,)``.
        ks: Values of k, at least 1.
        distance: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``.

    Returns:
        Recall for each k, from 0 to 1; higher is better.

    Raises:
        DataError: If no class has two images, the lengths differ, or a value is not finite.
        SettingError: If a k is below 1, or the name is not known.

    References:
        Jegou, Douze & Schmid, "Product quantization for nearest neighbor search", PAMI 2011: recall at R.

    Example:
        >>> recall_at_k([[0.0], [0.1], [5.0], [0.3]], [0, 0, 1, 1], ks=(1, 2), distance="euclidean")
        {1: 0.75, 2: 0.75}
    """
    return evaluate_retrieval(embeddings, labels, distance, ks=ks).recall_at


def map_at_r(embeddings: npt.ArrayLike, labels: Labels, distance: DistanceLike = "cosine") -> float:
    """Return the mean average precision at R, from 0 to 1; higher is better.

    R is the number of other images of the query's class:
    ``1/R * sum over i = 1..R of (precision at i if the i-th nearest is of the class, else 0)``.

    Args:
        embeddings: Shape ``(n, d)``; an array or a torch tensor.
        labels: Shape ``(n,)``.
        distance: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``.

    Raises:
        DataError: If no class has two images, the lengths differ, or a value is not finite.
        SettingError: If the name is not known.

    References:
        Musgrave, Belongie & Lim, "A metric learning reality check", ECCV 2020, eq. 4 and 5.
    """
    return evaluate_retrieval(embeddings, labels, distance, ks=()).map_at_r


def _search(vectors: Floats, label: Ints, distances: Distances) -> tuple[Ints, Ints, Floats]:
    """Return the queries' rows, the rank of each one's first hit (from 1), and its average precision at R."""
    queries = np.flatnonzero(np.bincount(label)[label] > 1) if len(label) else np.zeros(0, dtype=np.intp)
    if not len(queries):
        raise DataError(f"Retrieval needs two images of a class; none of {len(label)} images has another one")
    first, precision = np.empty(len(queries), dtype=np.intp), np.empty(len(queries))
    of_class = members(label)
    for start, distance in _to_others(vectors, queries, distances):
        hits = [np.sort(row[of_class[label[q]]])[:-1] for q, row in zip(queries[start:], distance)]
        distance.sort(axis=1)
        for k, (row, hit) in enumerate(zip(distance, hits), start):
            # The rank of the r-th hit counts all images at most as far, except later hits that are tied.
            nth = np.arange(1, len(hit) + 1)
            tied = np.searchsorted(hit, hit, side="right")
            rank = np.searchsorted(row, hit, side="right") - tied + nth
            first[k] = rank[0]
            precision[k] = np.sum((nth / rank)[rank <= len(hit)]) / len(hit)
    return queries, first, precision


def _to_others(vectors: Floats, queries: Ints, distances: Distances) -> Iterator[tuple[int, Floats]]:
    """Yield the distances of blocks of queries to all images, infinite to themselves; and their start."""
    rows = max(1, _BLOCK_VALUES // len(vectors))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        distance = distances(vectors[block], vectors)
        distance[np.arange(len(block)), block] = np.inf
        yield start, distance


def nearest_labels(embeddings: npt.ArrayLike, labels: Labels, distances: DistanceLike) -> npt.NDArray[Any]:
    """Return the label of each image's nearest other image.

    Args:
        embeddings: Shape ``(n, d)``.
        labels: Shape ``(n,)``.
        distances: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``; it
            is called on blocks of rows.

    Raises:
        DataError: If there are fewer than two images, or the lengths differ.
    """
    vectors, label, measure = as_vectors(embeddings), np.asarray(list(labels)), all_pairs(distances)
    if len(vectors) != len(label) or len(label) < 2:
        raise DataError(f"Two images with labels are needed; got {len(vectors)} and {len(label)} labels")
    every = _to_others(vectors, np.arange(len(label)), measure)
    found: npt.NDArray[Any] = label[np.concatenate([distance.argmin(axis=1) for _, distance in every])]
    return found


@dataclass(frozen=True)
class OpenSet:
    """Open-set identification at one threshold.

    Args:
        threshold: Largest distance to the closest label at which a probe is identified.
        fpir: False positive identification rate: share of unknown probes that were given a label.
        fnir: False negative identification rate: share of enrolled probes that were not given their label.
        n_strangers: Number of unknown probes.
        n_enrolled: Number of probes whose label is in the gallery.
    """

    threshold: float
    fpir: float | None
    fpir_ci: Interval | None
    fnir: float | None
    fnir_ci: Interval | None
    n_strangers: int
    n_enrolled: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values; null without probes of that kind."""
        return asdict(self)


def open_set(
    distance: npt.ArrayLike,
    threshold: float,
    *,
    label: Sequence[object] | npt.NDArray[Any],
    enrolled: npt.ArrayLike,
    correct: npt.ArrayLike,
    seed: int = 0,
) -> OpenSet:
    """Measure FPIR and FNIR at a threshold, with intervals from resampling the probes' labels.

    Both rates are from 0 to 1; lower is better. A higher threshold lowers FNIR and raises FPIR.

    Args:
        distance: Distance of each probe to its closest label, shape ``(probes,)``.
        threshold: Identified where ``distance <= threshold``; see `Calibration.identification_threshold`.
        label: True label of each probe, shape ``(probes,)``.
        enrolled: bool ``(probes,)``; True where that label is in the gallery.
        correct: bool ``(probes,)``; True where the closest label is the true one.
        seed: Seed of the resampling.

    Raises:
        DataError: If the lengths differ.

    References:
        Grother & Ngan, "Face Recognition Vendor Test", NIST IR 8009, 2014: open-set FPIR and FNIR.

    Example:
        >>> found = open_set([0.1, 0.4, 0.2, 0.9], 0.3, label=list("abcd"),
        ...                  enrolled=[True, True, False, False], correct=[True, True, False, False])
        >>> found.fpir, found.fnir
        (0.5, 0.5)
    """
    known, people = np.asarray(distance) <= threshold, np.asarray(label)
    is_enrolled, is_correct = np.asarray(enrolled, dtype=bool), np.asarray(correct, dtype=bool)
    if not known.shape == people.shape == is_enrolled.shape == is_correct.shape:
        raise DataError(
            "Each probe needs a distance, a label, 'enrolled' and 'correct'; got "
            f"{known.shape}, {people.shape}, {is_enrolled.shape} and {is_correct.shape}"
        )
    missed = ~(known & is_correct)[is_enrolled]
    taken = known[~is_enrolled]
    return OpenSet(
        threshold=float(threshold),
        fpir=float(taken.mean()) if taken.size else None,
        fpir_ci=mean_interval(taken, people[~is_enrolled], seed=seed),
        fnir=float(missed.mean()) if missed.size else None,
        fnir_ci=mean_interval(missed, people[is_enrolled], seed=seed),
        n_strangers=taken.size,
        n_enrolled=missed.size,
    )
