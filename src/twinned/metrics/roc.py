"""ROC curve, and the figures and thresholds read off it; ``same = distance <= threshold``, lower is closer.

No threshold separates equal distances, so the curve has one point for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError, SettingError
from .comparisons import Bools, Floats, Ints, as_array


class Tally(NamedTuple):
    """Distinct distances, ascending, with the numbers of genuine and impostor comparisons at each."""

    distance: Floats  # float64
    genuine: npt.NDArray[Any]  # counts; weights in a resampled set
    impostor: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Roc:
    """False accept and false reject rates at every distinct threshold.

    Args:
        threshold: Ascending: -inf (everything is rejected), then every distinct distance.
        far: Share of impostor comparisons with ``distance <= threshold``; from 0 up to 1.
        frr: Share of genuine comparisons with ``distance > threshold``; from 1 down to 0.
    """

    threshold: Floats
    far: Floats
    frr: Floats

    def eer(self) -> float:
        """Return the equal error rate, interpolated linearly between the two nearest points."""
        k, gap_before, gap_after = self._crossing()
        along = gap_before / (gap_before + gap_after)
        return float(self.far[k - 1] + along * (self.far[k] - self.far[k - 1]))

    def auc(self) -> float:
        """Return the probability that a genuine comparison is closer than an impostor; ties count half."""
        accepted = 1 - self.frr
        return float(np.sum(np.diff(self.far) * (accepted[1:] + accepted[:-1])) / 2)

    def d_prime(self) -> float:
        """Return ``(mean impostor - mean genuine) / sqrt((var genuine + var impostor) / 2)``, or NaN."""
        distance, genuine, impostor = self.threshold[1:], -np.diff(self.frr), np.diff(self.far)
        means = genuine @ distance, impostor @ distance
        spread = genuine @ (distance - means[0]) ** 2 + impostor @ (distance - means[1]) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((means[1] - means[0]) / np.sqrt(spread / 2))

    def at(self, threshold: float) -> tuple[float, float]:
        """Return FAR and FRR at a threshold."""
        k = np.searchsorted(self.threshold, threshold, side="right") - 1
        return float(self.far[k]), float(self.frr[k])

    def threshold_at_eer(self) -> float:
        """Return the threshold at which FAR and FRR are nearest to each other."""
        k, gap_before, gap_after = self._crossing()
        return self._between(k - 1 if gap_before <= gap_after else k)

    def threshold_at_far(self, far: float) -> float:
        """Return the largest threshold whose FAR is at most ``far``, the midpoint to the next distance.

        Raises:
            SettingError: If ``far`` is not between 0 and 1.
        """
        return self._between(self._last(far))

    def tar_at_far(self, far: float) -> float:
        """Return the share of genuine comparisons accepted at `threshold_at_far`."""
        return float(1 - self.frr[self._last(far)])

    def thinned(self, points: int = 500) -> Roc:
        """Return the curve with at most about ``points`` points, dense where either rate is small."""
        keep = _landmarks(self.far, self.frr, points)
        return Roc(self.threshold[keep], self.far[keep], self.frr[keep])

    def _crossing(self) -> tuple[int, Any, Any]:
        """Return the first point with FAR >= FRR, at least 1, and the gaps of the rates before and at it."""
        k = int(np.argmax(self.far >= self.frr))
        return k, self.frr[k - 1] - self.far[k - 1], self.far[k] - self.frr[k]

    def _last(self, far: float) -> int:
        check_far(far)
        return int(np.searchsorted(self.far, far, side="right")) - 1

    def _between(self, k: int) -> float:
        """Return the midpoint to the next distance."""
        if k == len(self.threshold) - 1:
            return float(self.threshold[k])
        above = float(self.threshold[k + 1])
        below = float(self.threshold[k]) if k else 0.0 if above > 0 else above - 1
        return (below + above) / 2


def check_far(far: float | None) -> None:
    """Raise an error if a false accept rate is not between 0 and 1; None is accepted."""
    if far is not None and not 0 < far < 1:
        raise SettingError(f"A false accept rate must be between 0 and 1, such as 0.01; got {far}")


def tally(distance: npt.ArrayLike, same: npt.ArrayLike) -> Tally:
    """Count genuine and impostor comparisons at each distinct distance; both kinds are needed."""
    values, is_same = as_array(distance), as_array(same).astype(bool)
    if values.ndim != 1 or values.shape != is_same.shape:
        raise DataError(f"Each distance needs one 'same'; got shapes {values.shape} and {is_same.shape}")
    if not np.isfinite(values).all():
        raise DataError("Distances must be finite; got NaN or infinity")
    if is_same.all() or not is_same.any():
        counts = f"{np.count_nonzero(is_same)} and {np.count_nonzero(~is_same)}"
        raise DataError(f"Both genuine and impostor comparisons are needed; got {counts}")
    if np.any(values[1:] < values[:-1]):
        order = np.argsort(values)
        values, is_same = values[order], is_same[order]
    return tally_sorted(values, is_same)


def tally_sorted(distance: Floats, same: Bools) -> Tally:
    """Tally distances that are already ascending."""
    last = np.append(np.flatnonzero(distance[1:] != distance[:-1]), len(distance) - 1)
    genuine = np.diff(np.cumsum(same)[last], prepend=0)
    return Tally(distance[last].astype(np.float64), genuine, np.diff(last, prepend=-1) - genuine)


def roc_of(counts: Tally) -> Roc:
    """Compute the ROC curve of a tally; the counts may be weights."""
    accepted, false = np.cumsum(counts.genuine), np.cumsum(counts.impostor)
    return Roc(
        threshold=np.concatenate([[-np.inf], counts.distance]),
        far=np.concatenate([[0.0], false / false[-1]]),
        frr=np.concatenate([[1.0], (accepted[-1] - accepted) / accepted[-1]]),
    )


def roc(distance: npt.ArrayLike, same: npt.ArrayLike) -> Roc:
    """Compute the exact ROC curve: false accept and false reject rate at every distinct distance.

    Args:
        distance: Shape ``(n,)``; lower is closer. An array or a torch tensor.
        same: bool ``(n,)``; True for comparisons of one class.

    Raises:
        DataError: If lengths differ, a distance is not finite, or one kind of comparison is missing.

    References:
        Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006, algorithm 1.

    Example:
        >>> curve = roc([0.1, 0.2, 0.2, 0.4], [True, True, False, False])
        >>> curve.threshold.tolist(), curve.far.tolist(), curve.frr.tolist()
        ([-inf, 0.1, 0.2, 0.4], [0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    return roc_of(tally(distance, same))


def eer(distance: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Return the equal error rate, from 0 to 1; lower is better, and 0.5 is chance.

    At this rate, as many impostors are accepted as genuine comparisons are rejected. It is interpolated
    linearly between the two nearest points of the ROC curve.

    Args:
        distance: Shape ``(n,)``; lower is closer. An array or a torch tensor.
        same: bool ``(n,)``; True for comparisons of one class.

    Raises:
        DataError: If lengths differ, a distance is not finite, or one kind of comparison is missing.

    References:
        ISO/IEC 19795-1:2021, biometric performance testing and reporting.

    Example:
        >>> eer([0.1, 0.3, 0.2, 0.4], [True, True, False, False])
        0.5
    """
    return roc(distance, same).eer()


def auc(distance: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, from 0 to 1; higher is better, and 0.5 is chance.

    It is the probability that a genuine comparison is closer than an impostor; ties count half.

    Args:
        distance: Shape ``(n,)``; lower is closer. An array or a torch tensor.
        same: bool ``(n,)``; True for comparisons of one class.

    Raises:
        DataError: If lengths differ, a distance is not finite, or one kind of comparison is missing.

    References:
        Hanley & McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.
    """
    return roc(distance, same).auc()


def best_threshold(distance: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Return the threshold with the highest accuracy; the lowest one on ties."""
    counts = tally(distance, same)
    # Accepting one more distance gains its genuine comparisons and loses its impostors.
    gained = np.concatenate([[0], np.cumsum(counts.genuine - counts.impostor)])
    return roc_of(counts)._between(int(np.argmax(gained)))


class Folds(NamedTuple):
    """Accuracy on each fold, at the threshold chosen on the other folds."""

    accuracies: Floats
    mean: float
    standard_error: float


def lfw_folds(distance: npt.ArrayLike, same: npt.ArrayLike, fold: npt.ArrayLike) -> Folds:
    """Measure accuracy by the LFW protocol: each fold's threshold is chosen on the other folds.

    Args:
        distance: Shape ``(n,)``.
        same: bool ``(n,)``.
        fold: Fold of each pair, shape ``(n,)``.

    Returns:
        Accuracies in the order of ``np.unique(fold)``, their mean and its standard error.

    Raises:
        DataError: If there are fewer than two folds.

    References:
        Huang, Ramesh, Berg & Learned-Miller, UMass Amherst TR 07-49, 2007, section IV: View 2.
    """
    values, is_same, folds = np.asarray(distance, dtype=np.float64), np.asarray(same, bool), np.asarray(fold)
    names = np.unique(folds)
    if len(names) < 2:
        raise DataError(f"At least two folds are needed; got {len(names)}")
    accuracies = np.empty(len(names))
    for k, name in enumerate(names):
        held_out = folds == name
        threshold = best_threshold(values[~held_out], is_same[~held_out])
        accuracies[k] = np.mean((values[held_out] <= threshold) == is_same[held_out])
    return Folds(accuracies, float(accuracies.mean()), float(accuracies.std(ddof=1) / np.sqrt(len(names))))


def pooled(counts: Tally) -> Tally:
    """Pool adjacent violators until the share of genuine comparisons falls with the distance (isotonic fit).

    Returns one row per block, with its largest distance: the segments of the ROC curve's convex hull.

    References:
        Barlow et al., Statistical Inference under Order Restrictions, 1972: pool adjacent violators.
        Brummer & du Preez, "The PAV algorithm optimizes binary proper scoring rules", 2013.
    """
    distance, genuine, impostor = counts
    while len(distance) > 1:
        wrong = genuine[1:] * impostor[:-1] >= genuine[:-1] * impostor[1:]
        if not wrong.any():
            break
        first = np.flatnonzero(np.concatenate([[True], ~wrong]))
        genuine, impostor = np.add.reduceat(genuine, first), np.add.reduceat(impostor, first)
        distance = distance[np.append(first[1:], len(distance)) - 1]
    return Tally(distance, genuine, impostor)


def coarse(counts: Tally, points: int = 4096) -> Tally:
    """Merge adjacent rows to at most about ``points``, dense where FAR or FRR is small.

    Each merged row keeps its largest distance, so FAR and FRR at the remaining distances are exact.
    """
    curve = roc_of(counts)
    keep = _landmarks(curve.far, curve.frr, points)
    ends = keep[1:]  # rows of the curve, which has one additional row in front
    first = np.concatenate([[0], ends[:-1]])
    return Tally(
        counts.distance[ends - 1],
        np.add.reduceat(counts.genuine, first),
        np.add.reduceat(counts.impostor, first),
    )


def _landmarks(far: Floats, frr: Floats, points: int) -> Ints:
    """Select rows of a curve, including both ends, evenly spaced in FAR and FRR and in their logarithms."""
    if len(far) <= points:
        return np.arange(len(far))
    quarter = max(2, points // 4)
    rates = np.concatenate([np.linspace(0, 1, quarter), np.geomspace(1e-7, 1, quarter)])
    rows = np.concatenate([np.searchsorted(far, rates), len(frr) - 1 - np.searchsorted(frr[::-1], rates)])
    return np.unique(np.concatenate([[0], rows.clip(0, len(far) - 1), [len(far) - 1]]))
