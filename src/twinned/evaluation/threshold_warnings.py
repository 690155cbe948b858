"""What must be said of a threshold and of what it was chosen on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..metrics.comparisons import Comparisons
from .calibration import Calibration

_FEW_GENUINE, FEW_CLASSES = 30, 4
_DOUBT = re.compile("the thresholds? (is|rests|was chosen|for)")  # how each of them begins


def threshold_warnings(calibration: Calibration, comparisons: Comparisons) -> Iterator[str]:
    """Yield warnings about a fitted threshold, each with what to do; see `is_threshold_warning`.

    Args:
        calibration: With the threshold.
        comparisons: That it was fitted on.
    """
    fit = calibration
    if not fit.unseen_classes:
        more = ", or 4 classes or more" if fit.n_classes < 4 else ""
        yield (
            "the threshold is from classes that training saw, this one or one before, so it is too hopeful:"
            f" give others, to train with --validate{more}, or to twinned calibrate"
        )
    few = [f"{fit.n_classes} classes"] if fit.n_classes < FEW_CLASSES else []
    few += [f"{fit.n_genuine} genuine comparisons"] if fit.n_genuine < _FEW_GENUINE else []
    if few:
        yield (
            f"the threshold rests on {' and '.join(few)}, too few to mean much: give more, or run twinned"
            " calibrate on more"
        )
    if fit.threshold <= 0:
        yield f"the threshold is {fit.threshold:g}, so only identical images are the same: train for longer"
    if fit.eer > 0.4:
        yield (
            f"the threshold is near guessing: on these classes the equal error rate is {fit.eer:.2f} (0.5 is"
            " chance): train for longer, give more classes, or look at the data with twinned check"
        )
    if fit.far is not None and not fit.supported:
        yield (
            f"the threshold is for a false accept rate of {fit.far:g}, which {fit.n_impostor:,} impostor"
            f" comparisons do not support: it takes {fit.impostors_needed:,}"
        )
    elif fit.far is not None and fit.references and not all(row.supported for row in fit.references.rows):
        yield (
            f"the thresholds for several references do not support a false accept rate of {fit.far:g}: they"
            f" rest on {min(row.n_impostor for row in fit.references.rows):,} impostor comparisons"
        )
    if (strangers := unknown_probes_pass(comparisons, fit.threshold)) is not None:
        yield strangers


def is_threshold_warning(note: str) -> bool:
    """Whether a model's note is of `threshold_warnings`, so that it goes with the threshold."""
    return _DOUBT.match(note.removeprefix("doctor: ")) is not None


def unknown_probes_pass(comparisons: Comparisons, threshold: float) -> str | None:
    """What must be said of a threshold that stops forgeries and lets strangers in; None where it does not."""
    if comparisons.skilled is None or not comparisons.skilled.any():
        return None
    forgeries, strangers = (
        float(np.mean(part.distance[~part.same] <= threshold)) if not part.same.all() else 0.0
        for part in (comparisons.against("skilled"), comparisons.against("random"))
    )
    if strangers <= max(2 * forgeries, 0.02):
        return None
    return (
        f"the threshold was chosen against forgeries and accepts more strangers ({strangers:.3f}) than"
        f" forgeries ({forgeries:.3f}): what tells forgeries apart may be no matter of the writing; see"
        " twinned check"
    )
