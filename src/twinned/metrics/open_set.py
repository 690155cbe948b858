"""Open-set identification: false positive and false negative identification rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .bootstrap import Interval, mean_interval


@dataclass(frozen=True)
class OpenSet:
    """Open-set identification at one threshold.

    Args:
        threshold: Largest distance to the closest label at which a probe is identified.
        fpir: False positive identification rate: share of unknown probes that were given a label.
        fnir: False negative identification rate: share of enrolled probes that were not given their label.
        n_strangers: Number of unknown probes.
        n_enrolled: Number of probes whose label is in the gallery.
    """

    threshold: float
    fpir: float | None
    fpir_ci: Interval | None
    fnir: float | None
    fnir_ci: Interval | None
    n_strangers: int
    n_enrolled: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values; null without probes of that kind."""
        return asdict(self)


def open_set(
    distance: npt.ArrayLike,
    threshold: float,
    *,
    label: Sequence[object] | npt.NDArray[Any],
    enrolled: npt.ArrayLike,
    correct: npt.ArrayLike,
    seed: int = 0,
) -> OpenSet:
    """Measure FPIR and FNIR at a threshold, with intervals from resampling the probes' labels.

    Both rates are from 0 to 1; lower is better. A higher threshold lowers FNIR and raises FPIR.

    Args:
        distance: Distance of each probe to its closest label, shape ``(probes,)``.
        threshold: Identified where ``distance <= threshold``; see `Calibration.identification_threshold`.
        label: True label of each probe, shape ``(probes,)``.
        enrolled: bool ``(probes,)``; True where that label is in the gallery.
        correct: bool ``(probes,)``; True where the closest label is the true one.
        seed: Seed of the resampling.

    Raises:
        DataError: If the lengths differ.

    References:
        Grother & Ngan, "Face Recognition Vendor Test", NIST IR 8009, 2014: open-set FPIR and FNIR.

    Example:
        >>> found = open_set([0.1, 0.4, 0.2, 0.9], 0.3, label=list("abcd"),
        ...                  enrolled=[True, True, False, False], correct=[True, True, False, False])
        >>> found.fpir, found.fnir
        (0.5, 0.5)
    """
    known, people = np.asarray(distance) <= threshold, np.asarray(label)
    is_enrolled, is_correct = np.asarray(enrolled, dtype=bool), np.asarray(correct, dtype=bool)
    if not known.shape == people.shape == is_enrolled.shape == is_correct.shape:
        raise DataError(
            "Each probe needs a distance, a label, 'enrolled' and 'correct'; got "
            f"{known.shape}, {people.shape}, {is_enrolled.shape} and {is_correct.shape}"
        )
    missed = ~(known & is_correct)[is_enrolled]
    taken = known[~is_enrolled]
    return OpenSet(
        threshold=float(threshold),
        fpir=float(taken.mean()) if taken.size else None,
        fpir_ci=mean_interval(taken, people[~is_enrolled], seed=seed),
        fnir=float(missed.mean()) if missed.size else None,
        fnir_ci=mean_interval(missed, people[is_enrolled], seed=seed),
        n_strangers=taken.size,
        n_enrolled=missed.size,
    )
