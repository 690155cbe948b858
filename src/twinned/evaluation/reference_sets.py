"""Verification against several references of one class.

One threshold for the nearest of K references accepts more impostors the larger K is, and ignores the spread
of a person's signatures. Sets of references are therefore drawn from held-out classes and compared with
probes, and a threshold and a probability are fitted for several K. The distance to a set is that to the
nearest reference or the scaled mean (`set_distance`), whichever had the lower equal error rate.

References:
    Hafemann, Sabourin & Oliveira, Offline handwritten signature verification: literature review, 2017:
    references of a writer, separate figures for skilled forgeries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..metrics.comparisons import Comparisons, Distances, Floats, Ints, compare_pairs
from ..metrics.roc import eer
from .calibration import ReferenceThreshold, ReferenceThresholds, set_distance
from .thresholds import fit_threshold, supported

COUNTS = (2, 3, 5, 10)
_CLASSES = 60  # maximum number of classes that sets of one size are drawn from
_TO_CHOOSE = 4  # classes needed to choose a distance, and for a row after the first
_SETS = 240  # in total, and at least _SETS_OF_A_CLASS per class
_SETS_OF_A_CLASS = 4
_PROBES = 30  # maximum number of genuine probes per set
_IMPOSTORS = 200  # maximum number of impostors per set
_LEAST = 30  # comparisons of each kind needed for a threshold


class ReferenceSet(NamedTuple):
    """Images of one class in random order, of which the first k are references, and impostors."""

    label: Any  # name of the class
    genuine: Floats  # distances of the references to all n images, (k, n)
    impostor: Floats  # and to the m impostors, (k, m)
    impostors: npt.NDArray[Any]  # their classes, (m,)
    rows: tuple[Ints, Ints]  # indices of the images, (n,), and of the impostors, (m,)


def draw_reference_sets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    distances: Distances,
    *,
    forgery: npt.ArrayLike | None = None,
    seed: int = 0,
) -> list[ReferenceSet]:
    """Draw sets of references with genuine and impostor probes; none if fewer than two classes have 3 images.

    Impostors are the forgeries of a class if there are any, else images of other classes.
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
    """Fit thresholds for as many references as the classes have images; None with too few sets for any."""
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
        figures = {"n_classes": classes, "n_genuine": n_genuine, "n_impostor": n_impostor}
        figures["supported"] = supported(fitted.eer if far is None else far, n_impostor)
        rows.append(ReferenceThreshold(**dict(fitted) | figures, images=count, scaled=scaled))
    return ReferenceThresholds(typical=typical, rows=tuple(rows)) if rows else None


def compare_references(
    drawn: Sequence[ReferenceSet], references: ReferenceThresholds
) -> list[tuple[ReferenceThreshold, Comparisons]]:
    """Compare probes with sets of references, for each threshold that the images suffice for."""
    typical = references.typical
    found = [(row, _score_probes(drawn, row.images, typical, scaled=row.scaled)) for row in references.rows]
    return [(row, pairs) for row, pairs in found if len(pairs.genuine) and len(pairs.impostor)]


def distinct_probes(drawn: Sequence[ReferenceSet], count: int) -> tuple[int, int]:
    """Count the genuine and impostor images that are compared with a set of ``count`` references.

    An image compared with several sets of a class counts once, since these comparisons are not independent.
    """
    used = [(one.label, *one.rows) for one in drawn if one.genuine.shape[1] > count]
    genuine = {(label, int(row)) for label, own, _ in used for row in own[count : count + _PROBES]}
    return len(genuine), len({(label, int(row)) for label, _, strangers in used for row in strangers})


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
