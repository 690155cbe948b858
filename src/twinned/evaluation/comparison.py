"""Comparison of two models on the same images, paired over classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DataError, SettingError
from ..metrics.bootstrap import (
    REPLICATES,
    Interval,
    class_count,
    interval,
    mean_replicates,
    p_value,
    paired_replicates,
)
from ..metrics.roc import eer as equal_error_rate
from .protocols import evaluate
from .results import NAMES, SEEN_IN_TRAINING, Evaluation

if TYPE_CHECKING:
    from ..data.datasets import ImageSet, PairSet
    from ..inference.model import Model

# Notes that matter where no threshold is measured.
_NOTES = (
    SEEN_IN_TRAINING,
    "people-seen-in-training",
    "hash-limitation",
    "unreadable",
    "sampled-comparisons",
    "few-classes",
)


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models.

    Args:
        a: Metric of model A, from 0 to 1.
        b: Metric of model B, from 0 to 1.
        difference: ``b - a``.
        ci: 95 % interval of the difference, from resampling classes; None with fewer than two.
        p_value: Two-sided p-value of no difference, above 0 and at most 1; None without an interval.
        better: Direction in which the metric improves.
    """

    a: float
    b: float
    difference: float
    ci: Interval | None
    p_value: float | None
    better: Literal["higher", "lower"]

    @property
    def winner(self) -> Literal["a", "b"] | None:
        """The better model; None where the p-value is 0.05 or above."""
        if self.p_value is None or self.p_value >= 0.05:
            return None
        return "b" if (self.difference > 0) == (self.better == "higher") else "a"

    def __str__(self) -> str:
        verdict = {"a": "A is better", "b": "B is better", None: "no significant difference"}[self.winner]
        found = f"A {self.a:.4f}  B {self.b:.4f}  B - A {self.difference:+.4f}"
        if self.ci is None or self.p_value is None:
            return f"{found}  no interval"
        return f"{found}  [{self.ci[0]:+.4f}, {self.ci[1]:+.4f}]  p {self.p_value:.2g}  {verdict}"


@dataclass(frozen=True)
class Comparison:
    """Two models compared on the same images; ``print(comparison)`` shows all figures.

    Args:
        eer: Difference in the equal error rate; against skilled forgeries where the data mark any.
        recall_at_1: Difference in the recall at 1; None for pairs.
        n_genuine: Number of genuine comparisons.
        n_impostor: Number of impostor comparisons.
        n_classes: Number of classes in them, which are resampled.
        seed: Seed of the resampling.
        notes: Notes on the data, such as images that one of the models has seen in training.
    """

    eer: Difference
    recall_at_1: Difference | None
    n_genuine: int
    n_impostor: int
    n_classes: int
    seed: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under their JSON keys, with those of each metric under its name."""
        figures = asdict(self)
        for name in ("eer", "recall_at_1"):
            if figures[name] is not None:
                figures[name] |= {"ci": figures[name]["ci"] and list(figures[name]["ci"])}
        return figures

    def __str__(self) -> str:
        head = f"{self.n_classes} classes, {self.n_genuine:,} genuine and {self.n_impostor:,} impostor"
        rows = [("eer", self.eer), ("recall_at_1", self.recall_at_1)]
        lines = [f"  {NAMES[key]:<18} {found}" for key, found in rows if found is not None]
        return "\n".join([f"{head} comparisons, 95 % interval of the difference", *lines, *self.notes])


def compare(
    model_a: Model,
    model_b: Model,
    images: ImageSet | PairSet | str | os.PathLike[str],
    *,
    protocol: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Compare two models on the same images: the difference in equal error rate and in recall at 1.

    Each difference is B minus A, with a 95 % interval and a p-value from a paired bootstrap: both models are
    measured on the same resampled classes. The thresholds of the models are not used.

    Args:
        model_a: Model A.
        model_b: Model B. Encoder, input and distance may be others than those of A.
        images: Labeled images or pairs that neither model was trained on, or their path.
        protocol: Protocol of `Model.evaluate` that makes comparisons: ``classes``, ``pairs`` or ``lfw``.
        seed: Seed of the resampling. The same seed gives the same result.
        progress: Show progress bars.

    Returns:
        The differences; ``print`` shows them, and ``to_dict()`` returns JSON values.

    Raises:
        DataError: If the data do not fit the protocol.
        SettingError: If the protocol is unknown, or a model is something else.
    """
    if wrong := [one for one in (model_a, model_b) if not hasattr(one, "_facts")]:
        raise SettingError(f"compare takes two models; got {wrong[0]!r}. Load a model with `twinned.load`")
    a, b = (
        evaluate(model, images, model._facts(), protocol=protocol, seed=seed, progress=progress)
        for model in (model_a, model_b)
    )
    return compare_evaluations(a, b, seed=seed)


def compare_evaluations(
    a: Evaluation, b: Evaluation, *, replicates: int = REPLICATES, seed: int = 0
) -> Comparison:
    """Compare the evaluations of two models on the same data.

    Both models are measured on the same resampled classes, so that what is hard for both cancels out. The
    interval of a difference is therefore narrower than the intervals of both figures suggest.

    Args:
        a: Evaluation of model A.
        b: Evaluation of model B.
        replicates: Number of resampled sets.
        seed: Seed of the resampling.

    Raises:
        DataError: If the evaluations are not of the same comparisons, or one kind of comparison is missing.

    References:
        Davison & Hinkley, Bootstrap Methods and Their Application, 1997.
    """
    if a.comparisons is None or b.comparisons is None:
        protocol = (a if a.comparisons is None else b).protocol
        raise DataError(f"Protocol {protocol} makes no same-or-different comparisons")
    one, other = a.comparisons.hardest(), b.comparisons.hardest()
    for name in ("same", "left", "right"):
        if not np.array_equal(getattr(one, name), getattr(other, name)):
            raise DataError("The evaluations are not of the same comparisons. Use the same images and seed")
    if one.same.all() or not one.same.any():
        raise DataError("Both genuine and impostor comparisons are needed to compare models")
    curves = list(paired_replicates(one, other, count=replicates, seed=seed))
    eer = _difference(
        equal_error_rate(one.distance, one.same),
        equal_error_rate(other.distance, other.same),
        [second.eer() - first.eer() for first, second in curves],
        units=class_count(one),
        better="lower",
    )
    recall = None
    if a.retrieval is not None and b.retrieval is not None:
        first, second = a.retrieval.rank == 1, b.retrieval.rank == 1
        change = second.astype(np.float64) - first
        recall = _difference(
            float(first.mean()),
            float(second.mean()),
            mean_replicates(change, a.retrieval.label, count=replicates, seed=seed),
            units=len(np.unique(a.retrieval.label)),
            better="higher",
        )
    n_genuine = int(np.count_nonzero(one.same))
    return Comparison(
        eer=eer,
        recall_at_1=recall,
        n_genuine=n_genuine,
        n_impostor=len(one) - n_genuine,
        n_classes=one.n_classes,
        seed=seed,
        notes=_notes(a, b),
    )


def _difference(
    a: float, b: float, replicates: Sequence[float], *, units: int, better: Literal["higher", "lower"]
) -> Difference:
    ci = interval(replicates, figure=b - a, units=units)
    return Difference(a, b, b - a, ci, None if ci is None else p_value(replicates, units=units), better)


def _notes(a: Evaluation, b: Evaluation) -> list[str]:
    """Return the notes on the data: those of both evaluations once, the others with the model's letter."""
    first, second = ([note.text for note in found.remarks if note.code in _NOTES] for found in (a, b))
    return [
        *(text if text in second else f"A: {text}" for text in first),
        *(f"B: {text}" for text in second if text not in first),
    ]
