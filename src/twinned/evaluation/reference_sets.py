"""Verification against several references of one class.

One threshold for the nearest of K references accepts more impostors the larger K is, and ignores the spread
of a person's signatures. Therefore sets of references are drawn from held-out classes, probes are compared
with them, and a threshold and a probability are fitted for several K. The distance to a set is that to the
nearest reference, or the mean distance scaled by the spread of the references, whichever had the lower
equal error rate on the held-out classes.

References:
    Hafemann, Sabourin & Oliveira, Offline handwritten signature verification: literature review, 2017:
    references of a writer, separate figures for skilled forgeries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..metrics.comparisons import (
    Comparisons,
    Distances,
    Floats,
    Ints,
    compare_pairs,
)
from ..metrics.roc import eer
from .thresholds import FittedThreshold, fit_threshold, supported

COUNTS = (2, 3, 5, 10)
_CLASSES = 60  # maximum number of classes that sets of one size are drawn from
_TO_CHOOSE = 4  # classes needed to choose a distance, and for a row after the first
_SETS = 240  # in total, and at least _SETS_OF_A_CLASS per class
_SETS_OF_A_CLASS = 4
_PROBES = 30  # maximum number of genuine probes per set
_IMPOSTORS = 200  # maximum number of impostors per set
_LEAST = 30  # comparisons of each kind needed for a threshold


class ReferenceThreshold(FittedThreshold):
    """Threshold for the distance to a set of references.

    Args:
        images: Number of references in a set.
        scaled: True for the mean distance scaled by the spread of the references, False for the nearest.
    """

    images: int = Field(ge=2, le=1000)
    scaled: bool


class ReferenceThresholds(BaseModel):
    """Thresholds for sets of references.

    Args:
        typical: Mean distance of two held-out images of one class, in units of the distance.
        rows: Thresholds by number of references, ascending.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    typical: float = Field(ge=0, le=1e30)
    rows: tuple[ReferenceThreshold, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> ReferenceThresholds:
        if np.any(np.diff([row.images for row in self.rows]) <= 0):
            raise ValueError("the numbers of references must rise from row to row")
        return self

    def row(self, count: int) -> ReferenceThreshold:
        """Return the threshold for a number of references, or for the next smaller number."""
        return [row for row in self.rows if row.images <= count or row is self.rows[0]][-1]

    def distance(self, to: Floats, among: Floats) -> Floats:
        """Return the distance of each probe to a set of references, shape ``(n,)``, at least 0.

        Args:
            to: Distances of the references to the probes, shape ``(k, n)``, k at least 2.
            among: Distances of the references to each other, shape ``(k, k)``.
        """
        row = self.row(len(to))
        return set_distance(to, among, typical=self.typical, scaled=row.scaled, images=row.images)


def set_distance(to: Floats, among: Floats, *, typical: float, scaled: bool, images: int) -> Floats:
    """Return the distance to the nearest reference, or the mean distance scaled by the references' spread.

    Nearest: with more references than the threshold was fitted for, the expected minimum over a random
    subset of that size, since the minimum over all falls with their number. Scaled: ``mean(d) * sqrt(typical
    / spread)``, where the spread is the references' mean distance from each other, with the typical distance
    counted once among them. At a typical spread it is the mean distance; a class with a small spread is
    judged more strictly, one with a large spread more leniently. The square root is a compromise between no
    scaling and division by the spread, which few references estimate poorly.

    Args:
        to: Shape ``(k, n)``.
        among: Shape ``(k, k)``.
        typical: Mean distance of two images of one class.
        scaled: Scaled mean distance rather than the nearest.
        images: Number of references that the threshold is for.

    Returns:
        Shape ``(n,)``, at least 0, lower is closer.

    Example:
        Two similar references and two different ones, each 0.4 from the probe.

        >>> to = np.array([[0.4], [0.4]])
        >>> sets = [np.array([[0, apart], [apart, 0]]) for apart in (0.1, 0.3)]
        >>> [float(set_distance(to, among, typical=0.2, scaled=True, images=2)[0].round(3)) for among in sets]
        [0.462, 0.358]
    """
    count = len(to)
    if not scaled:
        # Probability that the i-th nearest is the nearest of a random subset.
        share = np.ones(count)
        for i in range(1, count):
            share[i] = share[i - 1] * max(0, count - i + 1 - min(images, count)) / (count - i + 1)
        share -= np.append(share[1:], 0.0)
        return np.asarray(share @ np.sort(to, axis=0).astype(np.float64))
    pairs = among[np.triu_indices(count, 1)]
    spread = (pairs.sum(dtype=np.float64) + typical) / (len(pairs) + 1)
    return np.asarray(to.mean(axis=0, dtype=np.float64) * (np.sqrt(typical / spread) if spread > 0 else 1.0))


class ReferenceSet(NamedTuple):
    """Images of one class in random order, of which the first are references, and impostors.

    Args:
        label: Name of the class.
        genuine: Distances of the first images to all of them, shape ``(k, n)``.
        impostor: Distances of the first images to impostors, shape ``(k, m)``.
        impostors: Classes of the impostors, shape ``(m,)``.
        rows: Indices of the first images and of the impostors, shapes ``(n,)`` and ``(m,)``.
    """

    label: Any
    genuine: Floats
    impostor: Floats
    impostors: npt.NDArray[Any]
    rows: tuple[Ints, Ints]


def draw_reference_sets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    distances: Distances,
    *,
    forgery: npt.ArrayLike | None = None,
    seed: int = 0,
) -> list[ReferenceSet]:
    """Draw sets of references with genuine and impostor probes.

    Impostors are the forgeries of a class if there are any, else images of other classes.

    Args:
        embeddings: Shape ``(n, d)``.
        labels: Shape ``(n,)``.
        distances: All pairs, ``(n, d), (m, d) -> (n, m)``.
        forgery: bool ``(n,)``, True where the image imitates its label.
        seed: Seed of the draw.

    Returns:
        Sets; an empty list if fewer than two classes have three images.
    """
    vectors, label = np.asarray(embeddings), np.asarray(labels)
    forged = np.zeros(len(label), bool) if forgery is None else np.asarray(forgery, bool)
    names, code = np.unique(label, return_inverse=True)
    counts = np.bincount(code[~forged], minlength=len(names))
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for count in reversed(COUNTS):  # the largest classes are used for every number
        more = random.permutation(np.setdiff1d(np.flatnonzero(counts > count), chosen))
        chosen += more[: max(0, _CLASSES - len(chosen))].tolist()
    if len(chosen) < 2:
        return []
    drawn = []
    for number in chosen:
        own = np.flatnonzero((code == number) & ~forged)
        imitate = np.flatnonzero((code == number) & forged)
        others = imitate if forged.any() else np.flatnonzero(code != number)
        for _ in range(max(_SETS_OF_A_CLASS, _SETS // len(chosen)) if len(others) else 0):
            order = random.permutation(own)[: COUNTS[-1] + _PROBES]
            strangers = random.permutation(others)[:_IMPOSTORS]
            apart = distances(vectors[order[: COUNTS[-1]]], vectors[np.concatenate([order, strangers])])
            genuine, impostor = np.split(apart, [len(order)], axis=1)
            drawn.append(
                ReferenceSet(names[number], genuine, impostor, names[code[strangers]], (order, strangers))
            )
    return drawn


def fit_references(
    drawn: Sequence[ReferenceSet], *, far: float | None = None, prior: float = 0.5, seed: int = 0
) -> ReferenceThresholds | None:
    """Fit thresholds for as many references as the classes have images.

    Args:
        drawn: Sets of classes that the encoder was not trained on.
        far: Target false accept rate; equal error by default.
        prior: P(same) in use.
        seed: Seed of folds and resampling.

    Returns:
        None if there are too few sets for any threshold.
    """
    rows: list[ReferenceThreshold] = []
    typical = float(np.mean([np.mean(one.genuine[0, 1:]) for one in drawn])) if drawn else 0.0
    for count in COUNTS:
        nearest = _score_probes(drawn, count, typical, scaled=False)
        measured = _score_probes(drawn, count, typical, scaled=True)
        classes = len(np.unique(nearest.left))
        fewest = min(len(nearest.genuine), len(nearest.impostor))
        if fewest < _LEAST or classes < (_TO_CHOOSE if rows else 2):
            break
        scaled = classes >= _TO_CHOOSE and (
            eer(measured.distance, measured.same) < eer(nearest.distance, nearest.same)
        )
        fitted = fit_threshold(measured if scaled else nearest, far=far, prior=prior, seed=seed)
        n_genuine, n_impostor = distinct_probes(drawn, count)
        figures = {
            "n_classes": classes,
            "n_genuine": n_genuine,
            "n_impostor": n_impostor,
            "supported": supported(fitted.eer if far is None else far, n_impostor),
        }
        rows.append(ReferenceThreshold(**dict(fitted) | figures, images=count, scaled=scaled))
    return ReferenceThresholds(typical=typical, rows=tuple(rows)) if rows else None


def compare_references(
    drawn: Sequence[ReferenceSet], references: ReferenceThresholds
) -> list[tuple[ReferenceThreshold, Comparisons]]:
    """Compare probes with sets of references, for each threshold that the images suffice for."""
    found = [
        (row, _score_probes(drawn, row.images, references.typical, scaled=row.scaled))
        for row in references.rows
    ]
    return [(row, pairs) for row, pairs in found if len(pairs.genuine) and len(pairs.impostor)]


def distinct_probes(drawn: Sequence[ReferenceSet], count: int) -> tuple[int, int]:
    """Count the genuine and impostor images that are compared with a set of ``count`` references.

    An image compared with several sets of a class counts once, since these comparisons are not independent.
    """
    genuine: set[tuple[Any, int]] = set()
    impostor: set[tuple[Any, int]] = set()
    for one in drawn:
        if one.genuine.shape[1] > count:
            own, strangers = one.rows
            genuine.update((one.label, int(row)) for row in own[count : count + _PROBES])
            impostor.update((one.label, int(row)) for row in strangers)
    return len(genuine), len(impostor)


def _score_probes(drawn: Sequence[ReferenceSet], count: int, typical: float, *, scaled: bool) -> Comparisons:
    """Compare each set's probes with its first ``count`` images, for sets that have more."""
    distance: list[Floats] = [np.empty(0)]
    same = [np.empty(0, bool)]
    left: list[object] = []
    right: list[object] = []
    for one in drawn:
        if one.genuine.shape[1] > count:
            probes = one.genuine[:count, count : count + _PROBES]
            to = np.concatenate([probes, one.impostor[:count]], axis=1)
            among = one.genuine[:count, :count]
            distance.append(set_distance(to, among, typical=typical, scaled=scaled, images=count))
            same.append(np.arange(to.shape[1]) < probes.shape[1])
            left += [one.label] * to.shape[1]
            right += [one.label] * probes.shape[1] + one.impostors.tolist()
    return compare_pairs(np.concatenate(distance), np.concatenate(same), left=left, right=right)
