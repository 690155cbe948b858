"""Open-set identification: false positive and false negative identification rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .intervals import Interval, mean_interval


@dataclass(frozen=True)
class OpenSet:
    """Open-set identification at one threshold.

    Args:
        threshold: A probe is known where its closest label is at most this far.
        fpir: False positive identification rate: share of strangers taken for somebody.
        fnir: False negative identification rate: share of enrolled people's probes not given their label.
        n_strangers: Probes of nobody in the gallery.
        n_enrolled: Probes of somebody in the gallery.
    """

    threshold: float
    fpir: float | None
    fpir_ci: Interval | None
    fnir: float | None
    fnir_ci: Interval | None
    n_strangers: int
    n_enrolled: int

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; null where there was no such probe."""
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
    """FPIR and FNIR at a threshold, with intervals from resampling the probes' labels.

    Args:
        distance: Shape ``(probes,)``: how far each probe's closest label is.
        threshold: Known where ``distance <= threshold``; see `Calibration.identification_threshold`.
        label: Shape ``(probes,)``: whom each probe shows.
        enrolled: bool ``(probes,)``: whether that label is in the gallery.
        correct: bool ``(probes,)``: whether the closest label is the probe's own.
        seed: Of the resampling.

    Raises:
        DataError: If the lengths differ.

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
            "one distance, label, 'enrolled' and 'correct' a probe; got "
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
