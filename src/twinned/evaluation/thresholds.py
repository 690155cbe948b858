"""Fit a threshold and a probability to comparisons, with intervals and the counts behind them."""

from __future__ import annotations

import math

import numpy as np

from ..errors import DataError
from ..metrics.bootstrap import class_count, interval, rate_interval, replicates
from ..metrics.comparisons import Comparisons
from ..metrics.roc import Roc, roc_of, tally_sorted
from .calibration import FittedThreshold, check_prior
from .likelihood_ratio import fit_evidence

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
