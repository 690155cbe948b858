"""Fit a threshold and a probability to comparisons, with intervals and the counts behind them."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import DataError, SettingError
from ..metrics.bootstrap import (
    Interval,
    class_count,
    interval,
    rate_interval,
    replicates,
)
from ..metrics.comparisons import Bools, Comparisons, Floats
from ..metrics.roc import Roc, roc_of, tally_sorted
from .likelihood_ratio import Evidence, fit_evidence

RULE = 30  # expected errors for a rate to be supported
_RAREST = 1e-12  # lower bound of rates, to avoid overflow


def _ordered(ends: Interval) -> Interval:
    if ends[0] > ends[1]:
        raise ValueError(f"an interval must run from low to high; got {ends[0]} to {ends[1]}")
    return ends


_Ends = Annotated[Interval, AfterValidator(_ordered)]
_Rate = Annotated[float, Field(ge=0, le=1)]


class FittedThreshold(BaseModel):
    """Threshold and probability, with the counts behind them.

    Args:
        threshold: In units of the distance; ``same = distance <= threshold``.
        threshold_ci: 95 % interval from resampling classes; None without replicates.
        far: Target false accept rate; None for equal error.
        supported: True if at least 30 false accepts are expected at that rate (at the EER for equal error).
        impostors_needed: Number of impostor comparisons needed for that.
        n_genuine: Number of genuine comparisons.
        n_impostor: Number of impostor comparisons; only those with forgeries if there are any.
        n_classes: Number of classes.
        evidence: Log likelihood ratio as a function of the distance, logistic or isotonic, whichever had the
            lower Cllr in cross-validation over classes.
        prior: P(same) in use.
        cllr: Cost of the log likelihood ratios in bits, cross-validated; None with too few classes.
        min_cllr: Cost with the best possible calibration of the same comparisons.
        eer: Equal error rate of these comparisons.
        eer_ci: 95 % interval of the equal error rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float
    threshold_ci: _Ends | None
    far: Annotated[float, Field(gt=0, lt=1)] | None
    supported: bool
    impostors_needed: int = Field(ge=1)
    n_genuine: int = Field(ge=1)
    n_impostor: int = Field(ge=1)
    n_classes: int = Field(ge=1)
    evidence: Evidence
    prior: float = Field(gt=0, lt=1)
    cllr: Annotated[float, Field(ge=0)] | None
    min_cllr: float = Field(ge=0)
    eer: _Rate
    eer_ci: _Ends | None

    def same(self, distance: npt.ArrayLike) -> Bools:
        """Return True for each distance within the threshold."""
        return np.asarray(np.asarray(distance, dtype=np.float64) <= self.threshold)

    def llr(self, distance: npt.ArrayLike) -> Floats:
        """Return the log likelihood ratio of same against different; above 0 favors same."""
        return np.asarray(self.evidence.llr(distance))

    def probability(self, distance: npt.ArrayLike, *, prior: float | None = None) -> Floats:
        """Return the calibrated P(same) at each distance, in [0, 1]; it never rises with the distance.

        Args:
            distance: Any shape, or one number.
            prior: Share of same pairs in use, between 0 and 1; the stored one (0.5) by default.

        Raises:
            SettingError: If the prior is not between 0 and 1.
        """
        prior = self.prior if prior is None else prior
        if not 0 < prior < 1:
            raise SettingError(f"A prior must be between 0 and 1, such as 0.5; got {prior}")
        logit = self.llr(distance) + math.log(prior / (1 - prior))
        return np.asarray(0.5 * (1 + np.tanh(logit / 2)))


def fit_threshold(
    comparisons: Comparisons,
    *,
    far: float | None = None,
    prior: float = 0.5,
    bootstrap: int = 200,
    seed: int = 0,
) -> FittedThreshold:
    """Choose the threshold and fit the probability.

    Args:
        comparisons: Comparisons of classes that the encoder was not trained on. Where some impostors are
            skilled forgeries, only those count (see `Comparisons.hardest`).
        far: Target false accept rate, between 0 and 1; equal error by default.
        prior: P(same) in use; stored as the default of `FittedThreshold.probability`.
        bootstrap: Number of resampled sets for the intervals.
        seed: Seed of folds and resampling.

    Raises:
        DataError: If there is no genuine or no impostor comparison.
        SettingError: If ``far`` or ``prior`` is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise SettingError(f"A prior must be between 0 and 1, such as 0.5; got {prior}")
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

    Example:
        >>> impostors_needed(0.001)
        30000
    """
    return math.ceil(round(RULE / max(far, _RAREST), 6))


def supported(far: float, n_impostor: int) -> bool:
    """Return True if at least 30 errors are expected among so many impostor comparisons."""
    return far > 0 and n_impostor >= impostors_needed(far)
