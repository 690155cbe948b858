"""Warnings about a fitted threshold and the data behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..errors import many
from ..metrics.comparisons import Comparisons
from ..utils.notes import Note

if TYPE_CHECKING:
    from .calibration import Calibration

_FEW_GENUINE, FEW_CLASSES = 30, 4
PREFIX = "threshold-"  # of the codes of these warnings


def threshold_warnings(calibration: Calibration, comparisons: Comparisons) -> Iterator[Note]:
    """Yield warnings about a threshold and the comparisons that it was fitted on, each with a remedy."""
    fit, references = calibration, [] if calibration.references is None else calibration.references.rows
    more = ", or train on 4 classes or more" if fit.n_classes < FEW_CLASSES else ""
    few = [many(fit.n_classes, "class")] if fit.n_classes < FEW_CLASSES else []
    few += [many(fit.n_genuine, "genuine comparison")] if fit.n_genuine < _FEW_GENUINE else []
    if not fit.unseen_classes:
        text = "the threshold is from classes that training saw, so its error rates are too optimistic"
        yield Note("threshold-seen-classes", f"{text}: calibrate on other classes{more}")
    if few:
        text = f"the threshold rests on {' and '.join(few)}, too few to be reliable: calibrate on more images"
        yield Note("threshold-few-data", text)
    if fit.threshold <= 0:
        text = f"the threshold is {fit.threshold:g}, so only identical images are the same: train for longer"
        yield Note("threshold-zero", text)
    if fit.eer > 0.4:
        text = f"the threshold is near chance: the equal error rate on its classes is {fit.eer:.2f}"
        remedy = "Train for longer, use more classes, or run twinned check"
        yield Note("threshold-chance", f"{text} (chance is 0.5). {remedy}")
    if fit.far is not None and not fit.supported:
        text = f"the threshold is for a false accept rate of {fit.far:g}, which {fit.n_impostor:,} impostor"
        needed = f"comparisons do not support: {fit.impostors_needed:,} are needed"
        yield Note("threshold-unsupported", f"{text} {needed}")
    elif fit.far is not None and not all(row.supported for row in references):
        text = f"the thresholds for several references do not support a false accept rate of {fit.far:g}"
        least = min(row.n_impostor for row in references)
        yield Note("threshold-references-unsupported", f"{text}: they rest on {least:,} impostor comparisons")
    if (warning := unknown_probes_pass(comparisons, fit.threshold)) is not None:
        yield warning


def is_threshold_warning(code: str) -> bool:
    """Return True for the codes of `threshold_warnings`, which a new threshold makes obsolete."""
    return code.startswith(PREFIX)


def unknown_probes_pass(comparisons: Comparisons, threshold: float) -> Note | None:
    """Return a warning about a threshold that rejects forgeries but accepts random impostors."""
    if not comparisons.forged.any():
        return None
    forgeries, random = (
        float(np.mean(part.distance[~part.same] <= threshold)) if not part.same.all() else 0.0
        for part in (comparisons.against("skilled"), comparisons.against("random"))
    )
    if random <= max(2 * forgeries, 0.02):
        return None
    return Note(
        "threshold-random-impostors",
        f"the threshold was chosen against forgeries and accepts more random impostors ({random:.3f}) than"
        f" forgeries ({forgeries:.3f}): forgeries may differ from genuine images in something other than"
        " the writing. Run twinned check",
    )
