"""Intervals for measured figures, by resampling whole classes.

Two comparisons of one person are not two pieces of evidence: they share the person. What is drawn
anew is therefore the class (person, writer, alphabet), with everything that belongs to it. Every
interval of Twinned is a 95 % interval and is read off the replicates here.

With few classes the plain percentiles of a bootstrap are too narrow (with 5 classes they hold the
truth about 8 times in 10). The percentiles are moved outwards as Student's t asks; with very few
classes that means the smallest and the largest replicate.

References:
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015:
    the expanded percentile interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
REPLICATES = 1000


def interval(replicates: npt.ArrayLike, *, figure: float, units: int) -> Interval | None:
    """The 95 % interval of a figure from its bootstrap replicates.

    Args:
        replicates: The figure on each resampled set; NaN where it was not defined.
        figure: The figure itself. The interval always holds it.
        units: How many independent units (classes) were resampled.

    Returns:
        ``(low, high)``, or None where there is no replicate or fewer than two units.

    Example:
        >>> low, high = interval(range(101), figure=50.0, units=1_000_000)
        >>> round(low, 2), round(high, 2)
        (2.5, 97.5)
        >>> low, high = interval(range(101), figure=50.0, units=8)  # few units: wider
        >>> round(low, 2), round(high, 2)
        (0.59, 99.41)
    """
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if units < 2 or not values.size or not np.isfinite(figure):
        return None
    low, high = np.quantile(values, [_tail(units), 1 - _tail(units)]).tolist()
    return min(low, figure), max(high, figure)


def rate_interval(replicates: npt.ArrayLike, *, figure: float, units: int, trials: int) -> Interval | None:
    """`interval` for a share of ``trials``; a share of exactly 0 or 1 never looks certain.

    Without a single error every replicate is 0 as well. The rule of three then gives the end: 0 of n
    leaves up to 3/n open (at 95 %).

    Example:
        >>> low, high = rate_interval([0.0] * 200, figure=0.0, units=20, trials=300)
        >>> low, round(high, 4)
        (0.0, 0.0099)
    """
    found = interval(replicates, figure=figure, units=units)
    if found is None:
        return None
    least = 0.05 ** (1 / trials)  # the smallest success rate that gives n of n in 5 % of all cases
    low, high = found
    return (min(low, least) if figure == 1 else low), (max(high, 1 - least) if figure == 0 else high)


def mean_interval(
    values: npt.ArrayLike,
    cluster: npt.NDArray[Any] | Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval | None:
    """The 95 % interval of a mean (an accuracy, a recall) whose values come in clusters.

    Args:
        values: Shape ``(n,)``, each in [0, 1].
        cluster: Shape ``(n,)``: the class, person or alphabet of each value, the unit that is resampled.
        replicates: How many resampled sets.
        seed: Of the resampling.

    Example:
        >>> mean_interval([1, 1, 0, 1], ["a", "a", "b", "c"], seed=0)
        (0.0, 1.0)
    """
    value = np.asarray(values, dtype=np.float64)
    _, number = np.unique(np.asarray(cluster), return_inverse=True)
    if not value.size:
        return None
    total, count = np.bincount(number, weights=value), np.bincount(number)
    random = np.random.default_rng(seed)
    drawn = (random.integers(len(count), size=len(count)) for _ in range(replicates))
    means = [total[units].sum() / count[units].sum() for units in drawn]
    return rate_interval(means, figure=float(value.mean()), units=len(count), trials=value.size)


def _tail(units: int) -> float:
    """The share of replicates left out on each side: 0.025 for many units, less for few."""
    z, v = NormalDist().inv_cdf(0.975), units - 1
    # Student's t at 0.975 with v degrees of freedom (Cornish-Fisher series; 1 % low at v = 4).
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    return NormalDist().cdf(-t * (units / v) ** 0.5)
