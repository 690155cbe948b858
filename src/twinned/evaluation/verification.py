"""Verification figures of one model on one set of comparisons, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..metrics.bootstrap import Interval, class_count, interval, rate_interval, replicates
from ..metrics.comparisons import Bools, Comparisons, Floats, Ints
from ..metrics.roc import Roc, check_far, roc_of, tally, tally_sorted
from ..utils.groups import rank_within_group
from .calibration import FittedThreshold
from .thresholds import cllr, impostors_needed, min_cllr, supported

FARS = (0.1, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class TarAtFar:
    """Share of genuine comparisons accepted at a false accept rate; ``supported`` by the rule of 30."""

    tar: float
    ci: Interval | None
    supported: bool


@dataclass(frozen=True, eq=False)
class Band:
    """ROC (or DET) curve with its 95 % band, for plots: FRR at each FAR."""

    far: Floats
    frr: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class VerificationResult:
    """Verification figures, each with an interval from resampling classes; None where undefined.

    ``threshold``, ``far``, ``frr`` and ``cllr`` measure the STORED calibration, and are None without one; the
    others depend on the distances alone. If there are skilled forgeries, the figures are those against
    forgeries, and ``parts`` has the figures against random impostors and against forgeries.
    """

    threshold: float | None
    impostors: Literal["all", "random", "skilled"]
    n_genuine: int
    n_impostor: int
    n_classes: int
    far: float | None = None
    far_ci: Interval | None = None
    frr: float | None = None
    frr_ci: Interval | None = None
    eer: float | None = None
    eer_ci: Interval | None = None
    auc: float | None = None
    auc_ci: Interval | None = None
    d_prime: float | None = None
    d_prime_ci: Interval | None = None
    cllr: float | None = None
    min_cllr: float | None = None
    tar_at_far: dict[float, TarAtFar] = field(default_factory=dict)
    roc: Roc | None = None
    band: Band | None = None
    parts: dict[str, VerificationResult] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the figures under their JSON keys, without the curves."""
        figures = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in ("tar_at_far", "roc", "band", "parts")
        }
        figures["tar_at_far"] = {
            f"{far:g}": {"tar": row.tar, "ci": row.ci and list(row.ci), "supported": row.supported}
            for far, row in self.tar_at_far.items()
        }
        figures["impostors_needed"] = {f"{far:g}": impostors_needed(far) for far in self.tar_at_far}
        return figures | {kind: part.to_json() for kind, part in self.parts.items()}


def evaluate_verification(
    comparisons: Comparisons,
    calibration: FittedThreshold | None,
    *,
    extra_far: float | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> VerificationResult:
    """Measure a stored threshold and probability, and the figures that need neither. Nothing is fitted.

    Args:
        comparisons: Comparisons of the data to report on.
        calibration: Stored threshold and probability; None if the model has none.
        extra_far: Additional false accept rate for TAR at FAR.
        bootstrap: Number of resampled sets for the intervals.
        seed: Seed of the resampling.

    Raises:
        SettingError: If ``extra_far`` is not between 0 and 1.
    """
    check_far(extra_far)
    fars = sorted({*FARS, *([] if extra_far is None else [extra_far])}, reverse=True)
    measure = partial(_measure, calibration=calibration, fars=fars, bootstrap=bootstrap, seed=seed)
    if not comparisons.forged.any():
        return measure(comparisons, "all")
    parts = {kind: measure(comparisons.against(kind), kind) for kind in ("random", "skilled")}
    return replace(parts["skilled"], parts=parts)


def _measure(
    pairs: Comparisons,
    impostors: Literal["all", "random", "skilled"],
    calibration: FittedThreshold | None,
    fars: Sequence[float],
    bootstrap: int,
    seed: int,
) -> VerificationResult:
    pairs = pairs.ascending()
    n_genuine = int(np.count_nonzero(pairs.same))
    n_impostor = len(pairs) - n_genuine
    result = VerificationResult(
        threshold=None if calibration is None else calibration.threshold,
        impostors=impostors,
        n_genuine=n_genuine,
        n_impostor=n_impostor,
        n_classes=pairs.n_classes,
    )
    if not n_genuine or not n_impostor:
        if calibration is None:
            return result
        # One rate at the threshold is still defined.
        wrong = calibration.same(pairs.distance) != pairs.same
        rate = float(wrong.mean()) if len(pairs) else None
        return replace(result, far=rate if n_impostor else None, frr=rate if n_genuine else None)
    counts = tally_sorted(pairs.distance, pairs.same)
    curve, units = roc_of(counts), class_count(pairs)
    resampled = list(replicates(pairs, count=bootstrap, seed=seed))
    figures: dict[str, Any] = {}

    def rate_of(figure: Callable[[Roc], float], trials: int) -> tuple[float, Interval | None]:
        value = figure(curve)
        return value, rate_interval([figure(r) for r in resampled], figure=value, units=units, trials=trials)

    if calibration is not None:
        threshold = calibration.threshold
        figures["far"], figures["far_ci"] = rate_of(lambda r: r.at(threshold)[0], n_impostor)
        figures["frr"], figures["frr_ci"] = rate_of(lambda r: r.at(threshold)[1], n_genuine)
        figures["cllr"] = cllr(calibration.llr(pairs.distance), pairs.same, ~pairs.same)
    eer, eer_ci = rate_of(Roc.eer, min(n_genuine, n_impostor))
    auc, auc_ci = rate_of(Roc.auc, min(n_genuine, n_impostor))
    d_prime = curve.d_prime()
    rows = {level: rate_of(partial(Roc.tar_at_far, far=level), n_genuine) for level in fars}
    return replace(
        result,
        **figures,
        eer=eer,
        eer_ci=eer_ci,
        auc=auc,
        auc_ci=auc_ci,
        d_prime=d_prime if np.isfinite(d_prime) else None,
        d_prime_ci=interval([r.d_prime() for r in resampled], figure=d_prime, units=units),
        min_cllr=min_cllr(counts),
        tar_at_far={level: TarAtFar(*row, supported(level, n_impostor)) for level, row in rows.items()},
        roc=curve.thinned(2000),
        band=_band(curve, resampled, units),
    )


def _band(curve: Roc, resampled: Sequence[Roc], units: int) -> Band | None:
    thin = curve.thinned()
    far = np.unique(thin.far)
    frr = _frr_at(curve, far)
    spread = np.array([_frr_at(r, far) for r in resampled]).reshape(-1, len(far))
    ends = [interval(spread[:, k], figure=frr[k], units=units) for k in range(len(far))]
    if any(end is None for end in ends):
        return None
    low, high = np.array(ends).T
    return Band(far, frr, low, high)


def _frr_at(curve: Roc, far: Floats) -> Floats:
    return curve.frr[np.searchsorted(curve.far, far, side="right") - 1]


class Reliability(NamedTuple):
    """Predicted probability against the observed share of same, for each non-empty bin."""

    stated: Floats  # mean probability of the bin
    observed: Floats  # share of same among it, at the calibration's prior
    comparisons: Ints  # number
    low: Floats  # 95 % interval of the observed share, by resampling classes; NaN where undefined
    high: Floats


def reliability(
    comparisons: Comparisons,
    calibration: FittedThreshold,
    *,
    bins: int = 10,
    bootstrap: int = 200,
    seed: int = 0,
) -> Reliability:
    """Compute the reliability diagram: predicted probabilities against observed shares.

    Comparisons are weighted so that the share of same is the calibration's prior, whatever it is in the data.

    Raises:
        DataError: If there is no genuine or no impostor comparison.
    """
    pairs = comparisons.hardest().ascending()
    counts = tally(pairs.distance, pairs.same)

    def cell(stated: Floats) -> Ints:
        return np.minimum((stated * bins).astype(np.int64), bins - 1)

    def masses(curve: Roc) -> list[npt.NDArray[Any]]:
        """Return, for each bin, the share that is same, its total share, and that times the probability."""
        stated = calibration.probability(curve.threshold[1:])
        same = calibration.prior * -np.diff(curve.frr)
        whole = same + (1 - calibration.prior) * np.diff(curve.far)
        return [np.bincount(cell(stated), weights=w, minlength=bins) for w in (same, whole, whole * stated)]

    each = cell(calibration.probability(counts.distance))
    count = np.bincount(each, weights=counts.genuine + counts.impostor, minlength=bins).astype(np.int64)
    some = np.flatnonzero(count)
    same, whole, stated = (mass[some] for mass in masses(roc_of(counts)))
    observed, spread = same / whole, []
    for resampled in replicates(pairs, count=bootstrap, seed=seed):
        same, all_of_it, _ = (mass[some] for mass in masses(resampled))
        with np.errstate(invalid="ignore"):  # a bin may be empty in a resampled set
            spread.append(same / all_of_it)
    drawn, units = np.array(spread).reshape(-1, len(some)), class_count(pairs)
    ends = [
        rate_interval(drawn[:, k], figure=observed[k], units=units, trials=int(count[place]))
        for k, place in enumerate(some)
    ]
    low, high = np.array([end or (np.nan, np.nan) for end in ends]).T
    return Reliability(stated / whole, observed, count[some], low, high)


class ClassErrors(NamedTuple):
    """Error rates of each class, by class number; NaN where a class has no such comparison."""

    label: Ints
    frr: Floats  # of its genuine comparisons
    far: Floats  # of the impostor comparisons that it takes part in, on either side
    n_genuine: Ints
    n_impostor: Ints


def class_errors(comparisons: Comparisons, threshold: float) -> ClassErrors:
    """Compute error rates at a threshold, class by class."""
    size = int(max(comparisons.left.max(initial=0), comparisons.right.max(initial=0))) + 1
    wrong = (comparisons.distance.astype(np.float64) <= threshold) != comparisons.same

    def per_class(chosen: Bools) -> Ints:
        left, right = comparisons.left[chosen], comparisons.right[chosen]
        return np.bincount(left, minlength=size) + np.bincount(right[left != right], minlength=size)

    n_genuine, n_impostor = per_class(comparisons.same), per_class(~comparisons.same)
    with np.errstate(invalid="ignore"):
        frr = per_class(comparisons.same & wrong) / n_genuine
        far = per_class(~comparisons.same & wrong) / n_impostor
    label = np.flatnonzero(n_genuine + n_impostor)
    return ClassErrors(label, frr[label], far[label], n_genuine[label], n_impostor[label])


class Mistakes(NamedTuple):
    """Positions in the comparisons, the most confident mistake first."""

    false_accepts: Ints
    false_rejects: Ints


def mistakes(
    comparisons: Comparisons, threshold: float, *, count: int = 12, each: int | None = None
) -> Mistakes:
    """Find the closest accepted impostors and the farthest rejected genuine comparisons.

    There are at most ``count`` of either kind, and ``each`` of the same two classes, so that one hard pair
    does not hide the others.
    """
    accepted, same = comparisons.distance.astype(np.float64) <= threshold, comparisons.same

    def worst(wrong: Bools, distance: Floats) -> Ints:
        rows = np.flatnonzero(wrong)
        rows = rows[np.argsort(distance[rows], kind="stable")]
        sides = np.sort([comparisons.left[rows], comparisons.right[rows]], axis=0).astype(np.int64)
        pair = sides[0] * (sides.max(initial=0) + 1) + sides[1]
        return rows[rank_within_group(pair) < (each or count)][:count]

    return Mistakes(
        worst(accepted & ~same, comparisons.distance), worst(~accepted & same, -comparisons.distance)
    )
