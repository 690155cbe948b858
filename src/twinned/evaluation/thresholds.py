"""Fit a threshold and a probability to comparisons, with intervals and the counts behind them.

The log likelihood ratio, ``ln p(distance | same) - ln p(distance | different)``, does not depend on the
prior, which turns it into a probability: ``logit P(same) = llr + logit(prior)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..metrics.bootstrap import class_count, interval, rate_interval, replicates
from ..metrics.comparisons import Comparisons, Floats
from ..metrics.roc import Roc, Tally, coarse, pooled, roc_of, tally_sorted
from .calibration import FittedThreshold, Isotonic, Logistic, check_prior

FOLDS = 5
RULE = 30  # expected errors for a rate to be supported
_RAREST = 1e-12  # lower bound of rates, to avoid overflow


def fit_threshold(
    comparisons: Comparisons,
    *,
    far: float | None = None,
    prior: float = 0.5,
    bootstrap: int = 200,
    seed: int = 0,
) -> FittedThreshold:
    """Choose the threshold and fit the probability; see `evaluation.fitting.fit_calibration` for arguments.

    Where some impostors are skilled forgeries, only those count (see `Comparisons.hardest`).
    """
    check_prior(prior)
    pairs = comparisons.hardest().ascending()
    n_genuine = int(np.count_nonzero(pairs.same))
    n_impostor = len(pairs) - n_genuine
    if not n_genuine or not n_impostor:
        raise DataError(
            "A threshold needs two classes, and two images of one of them; "
            f"got {n_genuine} genuine and {n_impostor} impostor comparisons"
        )
    counts = tally_sorted(pairs.distance, pairs.same)
    curve = roc_of(counts)

    def threshold_of(curve: Roc) -> float:
        return curve.threshold_at_eer() if far is None else curve.threshold_at_far(far)

    threshold, equal = threshold_of(curve), curve.eer()
    resampled = list(replicates(pairs, count=bootstrap, seed=seed))
    units = class_count(pairs)
    evidence, cost, least = fit_evidence(pairs, seed=seed)
    rate = equal if far is None else far
    return FittedThreshold(
        threshold=threshold,
        threshold_ci=interval([threshold_of(r) for r in resampled], figure=threshold, units=units),
        far=far,
        supported=supported(rate, n_impostor),
        impostors_needed=impostors_needed(max(equal, 1 / n_impostor) if far is None else far),
        n_genuine=n_genuine,
        n_impostor=n_impostor,
        n_classes=pairs.n_classes,
        evidence=evidence,
        prior=prior,
        cllr=cost,
        min_cllr=least,
        eer=equal,
        eer_ci=rate_interval(
            [r.eer() for r in resampled], figure=equal, units=units, trials=min(n_genuine, n_impostor)
        ),
    )


def impostors_needed(far: float) -> int:
    """Return the number of impostor comparisons needed for a false accept rate, by the rule of 30.

    With 30 errors the rate is within 30 % in nine cases of ten, if comparisons are independent.
    """
    return math.ceil(round(RULE / max(far, _RAREST), 6))


def supported(far: float, n_impostor: int) -> bool:
    """Return True if at least 30 errors are expected among so many impostor comparisons."""
    return far > 0 and n_impostor >= impostors_needed(far)


def fit_logistic(counts: Tally) -> Logistic:
    """Fit a logistic regression of same on distance, with weight one half for each kind of comparison.

    Platt's targets, (n + 1) / (n + 2) instead of 1 and 1 / (n + 2) instead of 0, keep the slope finite for
    separable data. A line that would rise with the distance is set to 0: no evidence.

    References:
        Platt, "Probabilistic outputs for support vector machines", 1999.
        Brummer & du Preez, Computer Speech and Language 2006: the prior of one half makes the line an llr.
    """
    n_genuine, n_impostor = counts.genuine.sum(), counts.impostor.sum()
    genuine, impostor = counts.genuine / (2 * n_genuine), counts.impostor / (2 * n_impostor)
    mass = genuine + impostor
    target = genuine * (n_genuine + 1) / (n_genuine + 2) + impostor / (n_impostor + 2)
    center = mass @ counts.distance
    scale = float(np.sqrt(mass @ (counts.distance - center) ** 2))
    if scale == 0:
        return Logistic(intercept=0.0, slope=0.0)
    x = np.stack([np.ones_like(mass), (counts.distance - center) / scale])

    def loss(line: Floats) -> float:
        return float(mass @ np.logaddexp(0, line @ x) - target @ (line @ x))

    line = np.zeros(2)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(line @ x / 2))  # logistic function
        gradient = x @ (mass * p - target)
        hessian = (x * (mass * p * (1 - p))) @ x.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while loss(line - step) > loss(line) and np.abs(step).max() > 1e-12:
            step /= 2
        line = line - step
        if np.abs(step).max() < 1e-9:
            break
    if line[1] >= 0:
        return Logistic(intercept=0.0, slope=0.0)
    slope = float(line[1]) / scale
    return Logistic(intercept=float(line[0] - slope * center), slope=slope)


def fit_isotonic(counts: Tally) -> Isotonic:
    """Fit the best falling curve (PAV), bounded: n comparisons support ratios up to n + 1."""
    n_genuine, n_impostor = counts.genuine.sum(), counts.impostor.sum()
    blocks, ratio = _falling(counts)
    value = ratio.clip(-np.log(n_genuine + 1), np.log(n_impostor + 1))
    # A knot at the first and the last distance of each block: constant within, linear to the next.
    after = np.searchsorted(counts.distance, blocks.distance[:-1], side="right")
    first = np.concatenate([counts.distance[:1], counts.distance[after]])
    knots, values = np.stack([first, blocks.distance], 1).ravel(), np.repeat(value, 2)
    keep = np.concatenate([[True], np.diff(knots) > 0])
    return Isotonic(knots=tuple(knots[keep].tolist()), values=tuple(values[keep].tolist()))


def cllr(llr: Floats, genuine: npt.NDArray[Any], impostor: npt.NDArray[Any]) -> float:
    """Return the cost of log likelihood ratios in bits: 0 is perfect, 1 uninformative, above 1 misleading.

    ``1/2 [mean over genuine of log2(1 + 1/LR) + mean over impostors of log2(1 + LR)]``, where ``genuine`` and
    ``impostor`` are the numbers of comparisons with each ratio.

    References:
        Brummer & du Preez, "Application-independent evaluation of speaker detection", 2006.
    """
    # An infinite ratio costs nothing without comparisons of the other kind.
    false_reject = np.logaddexp(0, -llr[genuine > 0]) @ genuine[genuine > 0] / genuine.sum()
    false_accept = np.logaddexp(0, llr[impostor > 0]) @ impostor[impostor > 0] / impostor.sum()
    return float((false_reject + false_accept) / (2 * np.log(2)))


def min_cllr(counts: Tally) -> float:
    """Return the lowest Cllr of any falling function of the distance on these data."""
    blocks, ratio = _falling(counts)
    return cllr(ratio, blocks.genuine, blocks.impostor)


def _falling(counts: Tally) -> tuple[Tally, Floats]:
    """Return blocks in which the share of genuine comparisons falls, and their log likelihood ratios."""
    blocks = pooled(counts)
    with np.errstate(divide="ignore"):
        genuine, impostor = (np.log(kind / kind.sum()) for kind in (blocks.genuine, blocks.impostor))
    return blocks, genuine - impostor


def fit_evidence(
    comparisons: Comparisons, *, seed: int = 0
) -> tuple[Logistic | Isotonic, float | None, float]:
    """Fit the logistic or the isotonic function, whichever has the lower Cllr in cross-validation.

    Classes are divided into at most five folds. A fit uses comparisons among classes of the other folds and
    is scored on comparisons within its own fold. Returns the fit on all comparisons, its cross-validated
    Cllr, and the lowest Cllr of the same comparisons; with too few classes for two folds, the logistic fit,
    None, and the lowest Cllr of all comparisons.
    """
    pairs = comparisons.ascending()
    counts = coarse(tally_sorted(pairs.distance, pairs.same))
    costs: dict[Callable[[Tally], Logistic | Isotonic], float] = {}
    splits = list(_splits(pairs, counts, seed))
    tested = [own for _, own in splits]
    if sum(own.genuine.sum() for own in tested) and sum(own.impostor.sum() for own in tested):
        for fit in (fit_logistic, fit_isotonic):
            llr = np.concatenate([fit(others).llr(own.distance) for others, own in splits])
            genuine, impostor = (np.concatenate([own[kind] for own in tested]) for kind in (1, 2))
            costs[fit] = cllr(llr, genuine, impostor)
    best = min(costs, key=costs.__getitem__, default=fit_logistic)
    return best(counts), costs.get(best), min_cllr(_joined(tested) if costs else counts)


def _splits(pairs: Comparisons, counts: Tally, seed: int) -> Iterator[tuple[Tally, Tally]]:
    """Yield tallies of the other folds and of the fold, for each fold that can be fitted."""
    folds = max(1, min(FOLDS, pairs.n_classes // 2))
    fold = np.zeros(pairs.classes[-1] + 1, dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(pairs.classes)] = np.arange(pairs.n_classes) % folds
    cells = len(counts.distance)
    cell = np.repeat(np.arange(cells), counts.genuine + counts.impostor)
    cell += ((fold[pairs.left] * folds + fold[pairs.right]) * 2 + pairs.same) * cells
    table = np.bincount(cell, minlength=folds * folds * 2 * cells).reshape(folds, folds, 2, cells)
    for k in range(folds):
        others = np.delete(np.delete(table, k, axis=0), k, axis=1).sum(axis=(0, 1))
        if others.any(axis=1).all():
            yield _filled(counts.distance, others), _filled(counts.distance, table[k, k])


def _filled(distance: Floats, table: npt.NDArray[np.int64]) -> Tally:
    """Build a tally of the rows with a comparison; ``table``: impostor and genuine counts."""
    some = table.any(axis=0)
    return Tally(distance[some], table[1, some], table[0, some])


def _joined(tallies: Sequence[Tally]) -> Tally:
    """Merge tallies."""
    distance, genuine, impostor = (np.concatenate(column) for column in zip(*tallies, strict=True))
    each, place = np.unique(distance, return_inverse=True)
    return Tally(
        each, *(np.bincount(place, column, len(each)).astype(np.int64) for column in (genuine, impostor))
    )
