"""A threshold fitted on comparisons: where "same" ends, how sure that is, and what a distance is worth."""

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
_RAREST = 1e-12  # a rate below it counts as this one: no data come near it


def _ordered(ends: Interval) -> Interval:
    if ends[0] > ends[1]:
        raise ValueError(f"an interval runs from low to high; got {ends[0]} to {ends[1]}")
    return ends


_Ends = Annotated[Interval, AfterValidator(_ordered)]
_Rate = Annotated[float, Field(ge=0, le=1)]


class FittedThreshold(BaseModel):
    """A threshold and a probability, and the counts behind them.

    Args:
        threshold: In units of the distance; ``same = distance <= threshold``.
        threshold_ci: Its 95 % interval from resampling classes; None where nothing could be resampled.
        far: The false accept rate that was asked for; None for equal error.
        supported: Whether at least 30 false accepts are expected at that rate (at the EER for equal error).
        impostors_needed: How many impostor comparisons that takes.
        n_genuine: Genuine comparisons behind it.
        n_impostor: Impostor comparisons behind it; those with forgeries alone where there are any.
        n_classes: Classes behind it.
        evidence: From a distance to a log likelihood ratio, logistic or isotonic, whichever had the lower
            Cllr in cross-validation over classes.
        prior: P(same) before looking.
        cllr: Cost of the evidence in bits, cross-validated; None with too few classes.
        min_cllr: What is left of it with the best possible calibration of the same comparisons.
        eer: Equal error rate of these comparisons.
        eer_ci: Its interval.
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
        """Whether each distance is within the threshold."""
        return np.asarray(np.asarray(distance, dtype=np.float64) <= self.threshold)

    def llr(self, distance: npt.ArrayLike) -> Floats:
        """Log likelihood ratio of same against different; above 0 speaks for same."""
        return np.asarray(self.evidence.llr(distance))

    def probability(self, distance: npt.ArrayLike, *, prior: float | None = None) -> Floats:
        """Calibrated P(same) at each distance, in [0, 1]; never rises with the distance.

        Args:
            distance: Any shape, or one number.
            prior: P(same) before looking, between 0 and 1: the share of same pairs where this is used. The
                stored one (0.5) by default.

        Raises:
            SettingError: If the prior is not between 0 and 1.
        """
        prior = self.prior if prior is None else prior
        if not 0 < prior < 1:
            raise SettingError(f"a prior is a probability between 0 and 1, such as 0.5; got {prior}")
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
        comparisons: Of classes that the encoder was not trained on; where some impostors are skilled
            forgeries, those count alone (see `Comparisons.hardest`).
        far: The false accept rate to hold, between 0 and 1; equal error by default.
        prior: P(same) before looking; stored as the default of `FittedThreshold.probability`.
        bootstrap: How many resampled sets the intervals come from.
        seed: Of folds and resampling.

    Raises:
        DataError: If there is no genuine or no impostor comparison.
        SettingError: If ``far`` or ``prior`` is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise SettingError(f"a prior is a probability between 0 and 1, such as 0.5; got {prior}")
    pairs = comparisons.hardest().ascending()
    n_genuine = int(np.count_nonzero(pairs.same))
    n_impostor = len(pairs) - n_genuine
    if not n_genuine or not n_impostor:
        raise DataError(
            "a threshold needs two classes, and two images of one of them; "
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
    """Impostor comparisons that a false accept rate takes: the rule of 30.

    Thirty errors give the rate to within 30 % in nine cases of ten, were comparisons independent.

    Example:
        >>> impostors_needed(0.001)
        30000
    """
    return math.ceil(round(RULE / max(far, _RAREST), 6))


def supported(far: float, n_impostor: int) -> bool:
    """Whether so many comparisons are enough for this false accept rate: at least 30 errors expected."""
    return far > 0 and n_impostor >= impostors_needed(far)
