"""Bootstrap over classes: resampled ROC curves, and 95 % intervals of rates and means.

Two comparisons of one person are not independent. The class (person, writer, alphabet) is therefore drawn
with replacement, with everything that belongs to it. A class drawn w times gives each of its genuine
comparisons the weight w; an impostor comparison of two classes has the product of their weights. Comparisons
of two copies of one class are left out: they would be genuine and identical.

With few classes the plain percentiles of a bootstrap are too narrow (with 5 classes they cover the true value
about 8 times in 10), so they are expanded by Student's t.

References:
    Snijders & Borgatti, Connections 1999: the vertex bootstrap.
    Bolle, Ratha & Pankanti, CVIU 2004: resampling subjects, since comparisons are not independent.
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015:
    the expanded percentile interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from .comparisons import Comparisons, Floats, Ints
from .roc import Roc, Tally, coarse, roc_of, tally_sorted

Interval = tuple[float, float]
REPLICATES = 1000
_KEPT = 500_000  # approximate number of comparisons in each replicate


def interval(replicates: npt.ArrayLike, *, figure: float, units: int) -> Interval | None:
    """Return the 95 % interval of a figure from its replicates (NaN where undefined); it contains the figure.

    None without replicates, or with fewer than two units (classes) resampled.
    """
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if units < 2 or not values.size or not np.isfinite(figure):
        return None
    low, high = np.quantile(values, [_tail(units), 1 - _tail(units)]).tolist()
    return min(low, figure), max(high, figure)


def rate_interval(replicates: npt.ArrayLike, *, figure: float, units: int, trials: int) -> Interval | None:
    """Return the `interval` of a share of ``trials``, never of zero width at a share of 0 or 1.

    Without a single error the rule of three gives the upper end: 0 of n leaves up to 3/n open (at 95 %).
    """
    found = interval(replicates, figure=figure, units=units)
    if found is None:
        return None
    least = 0.05 ** (1 / trials)  # the smallest success rate that gives n of n in 5 % of all cases
    low, high = found
    return (min(low, least) if figure == 1 else low), (max(high, 1 - least) if figure == 0 else high)


def p_value(replicates: npt.ArrayLike, *, units: int) -> float:
    """Return the two-sided p-value of no difference, from the bootstrap replicates of a difference.

    It is 1 minus the level of the widest `interval` without 0, so that p is below 0.05 where the 95 %
    interval is on one side of 0. With n replicates and many units p is at least ``2 / (n + 1)``.

    References:
        Davison & Hinkley, Bootstrap Methods and Their Application, 1997, section 4.4.
    """
    values = np.asarray(replicates, dtype=np.float64)
    values = np.sort(values[np.isfinite(values)])
    beyond = max(min(_share_up_to_0(values), _share_up_to_0(-values[::-1])), 1 / (len(values) + 1))
    if beyond >= 0.5:
        return 1.0
    reached = -NormalDist().inv_cdf(beyond)
    low, high = 0.0, reached
    for _ in range(50):  # bisection: inverts `_expand`
        middle = (low + high) / 2
        low, high = (middle, high) if _expand(middle, units) < reached else (low, middle)
    return 2 * NormalDist().cdf(-high)


def mean_interval(
    values: npt.ArrayLike,
    cluster: npt.NDArray[Any] | Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval | None:
    """Return the 95 % interval of a mean (an accuracy, a recall) of clustered values.

    Args:
        values: Shape ``(n,)``, each in [0, 1].
        cluster: Shape ``(n,)``: the class, person or alphabet of each value, which is the unit resampled.
        replicates: Number of resampled sets.
        seed: Seed of the resampling.

    Example:
        >>> mean_interval([1, 1, 0, 1], ["a", "a", "b", "c"], seed=0)
        (0.0, 1.0)
    """
    value = np.asarray(values, dtype=np.float64)
    if not value.size:
        return None
    means = mean_replicates(value, cluster, count=replicates, seed=seed)
    units = len(np.unique(np.asarray(cluster)))
    return rate_interval(means, figure=float(value.mean()), units=units, trials=value.size)


def mean_replicates(
    values: npt.ArrayLike,
    cluster: npt.NDArray[Any] | Sequence[object],
    *,
    count: int = REPLICATES,
    seed: int = 0,
) -> list[float]:
    """Return the mean of clustered values on each resampled set; arguments as for `mean_interval`."""
    number = np.unique(np.asarray(cluster), return_inverse=True)[1]
    total, size = np.bincount(number, weights=np.asarray(values)), np.bincount(number)
    random = np.random.default_rng(seed)
    drawn = (random.integers(len(size), size=len(size)) for _ in range(count))
    return [float(total[units].sum() / size[units].sum()) for units in drawn]


def _share_up_to_0(ascending: Floats) -> float:
    """Return the quantile at which ascending values pass 0, by linear interpolation as in ``np.quantile``."""
    k = int(np.searchsorted(ascending, 0, side="right"))
    if k in (0, len(ascending)):
        return float(k > 0)
    below, above = ascending[k - 1 : k + 1].tolist()
    return float((k - 1 - below / (above - below)) / (len(ascending) - 1))


def _tail(units: int) -> float:
    """Return the share of replicates outside of each end: 0.025 for many units, less for few."""
    return NormalDist().cdf(-_expand(NormalDist().inv_cdf(0.975), units))


def _expand(z: float, units: int) -> float:
    """Return the quantile of Student's t at the level of a normal quantile, for the mean of few units."""
    v = units - 1  # Cornish-Fisher series with v degrees of freedom; 1 % low at 0.975 and v = 4
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    return float(t * (units / v) ** 0.5)


def class_count(comparisons: Comparisons) -> int:
    """Return the number of independent units that `replicates` draws: classes (pairs for one or two)."""
    classes = comparisons.n_classes
    return classes if classes > 2 else len(comparisons)


def replicates(comparisons: Comparisons, *, count: int = 200, seed: int = 0) -> Iterator[Roc]:
    """Yield ROC curves of resampled sets, on one common grid of thresholds.

    The grid has every distinct distance, or about 4,000 of them, dense where FAR or FRR is small. Above
    about half a million comparisons its crowded cells are represented by comparisons evenly spaced by
    distance. With one or two classes single comparisons are resampled. A draw without a genuine or an
    impostor comparison yields no curve.
    """
    return (curve for curve in _curves(comparisons, count, seed) if curve is not None)


def paired_replicates(
    a: Comparisons, b: Comparisons, *, count: int = REPLICATES, seed: int = 0
) -> Iterator[tuple[Roc, Roc]]:
    """Yield the ROC curves of two models on the same resampled sets of the same pairs; see `replicates`."""
    for one, other in zip(_curves(a, count, seed), _curves(b, count, seed), strict=True):
        if one is not None and other is not None:
            yield one, other


def _curves(comparisons: Comparisons, count: int, seed: int) -> Iterator[Roc | None]:
    """Yield the curve of each draw; None without a genuine or an impostor comparison."""
    if comparisons.n_classes <= 2:
        single = np.arange(len(comparisons), dtype=np.int32)
        comparisons = replace(comparisons, left=single, right=single)
    pairs, present = comparisons.ascending(), comparisons.classes
    grid = coarse(tally_sorted(pairs.distance, pairs.same))
    left, right = pairs.left, pairs.right
    units = int(present[-1]) + 1
    right = np.where(left == right, units, right)  # unit number `units` always has the weight 1
    kept = max(1, _KEPT // (2 * len(grid.distance)))
    genuine = _Cells(grid.genuine, left[pairs.same], right[pairs.same], kept)
    impostor = _Cells(grid.impostor, left[~pairs.same], right[~pairs.same], kept)
    random = np.random.default_rng(seed)
    weight = np.ones(units + 1)
    for _ in range(count):
        drawn = random.integers(len(present), size=len(present))
        weight[present] = np.bincount(drawn, minlength=len(present))
        weights = Tally(grid.distance, genuine.weigh(weight), impostor.weigh(weight))
        yield roc_of(weights) if weights.genuine.any() and weights.impostor.any() else None


class _Cells:
    """Comparisons of one kind, ascending by distance, divided into the cells of the grid and thinned."""

    def __init__(self, sizes: Ints, left: Ints, right: Ints, most: int) -> None:
        self.cells, self.filled = len(sizes), np.flatnonzero(sizes)
        size = sizes[self.filled]
        taken = np.minimum(size, most)
        self.share = size / taken  # comparisons that each kept one represents
        self.first = np.cumsum(taken) - taken
        position = np.arange(taken.sum()) - np.repeat(self.first, taken)  # within its cell
        row = np.repeat(np.cumsum(size) - size, taken) + (
            (position + 0.5) * np.repeat(self.share, taken)
        ).astype(int)
        self.left, self.right = left[row], right[row]

    def weigh(self, weight: Floats) -> Floats:
        """Return the total weight in each cell, given the weight of each unit."""
        total = np.zeros(self.cells)
        total[self.filled] = np.add.reduceat(weight[self.left] * weight[self.right], self.first) * self.share
        return total
