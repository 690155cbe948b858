"""Fit the calibration of a model: thresholds for two images, for sets of references and for galleries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data.datasets import ImageSet
from ..errors import many
from ..metrics.comparisons import Comparator, Comparisons, Floats, compare
from ..metrics.roc import roc
from ..utils.notes import Note, note
from .calibration import Calibration
from .identification import fit_identification
from .reference_sets import ReferenceSet, draw_reference_sets, fit_references
from .thresholds import fit_threshold

if TYPE_CHECKING:
    from ..data.datasets import PairSet

_FEW_GENUINE, FEW_CLASSES = 30, 4


class CalibrationReport(NamedTuple):
    """Result of `calibrate`: figures are the equal error rate and about 200 points of the error curve."""

    calibration: Calibration
    comparisons: Comparisons  # that it was fitted on
    figures: dict[str, Any]  # of those comparisons, for `Manifest.held_out`


def calibrate(
    embeddings: Floats,
    dataset: ImageSet | PairSet,
    comparator: Comparator,
    *,
    far: float | None = None,
    prior: float = 0.5,
    unseen_classes: bool = True,
    seed: int = 0,
) -> CalibrationReport:
    """Fit thresholds and probabilities to the embeddings of a data set, and note `threshold_warnings`.

    ``far`` is the false accept rate to choose the threshold at, equal error by default, and ``prior`` is
    P(same) in use. The classes are best ones that the encoder was not trained on (``unseen_classes``).

    Raises:
        DataError: If there is no genuine or no impostor comparison.
        SettingError: If ``far`` or ``prior`` is not between 0 and 1.
    """
    comparisons = compare(embeddings, dataset, comparator, seed=seed)
    sets: list[ReferenceSet] = []
    if isinstance(dataset, ImageSet):
        measure, labels, forgery = comparator.distances, dataset.labels, dataset.forgery
        sets = draw_reference_sets(embeddings, labels, measure, forgery=forgery, seed=seed)
    return calibrate_on(comparisons, sets, far=far, prior=prior, unseen_classes=unseen_classes, seed=seed)


def calibrate_on(comparisons: Comparisons, sets: Sequence[ReferenceSet], **options: Any) -> CalibrationReport:
    """Do as `calibrate` for comparisons and reference sets that are there, such as those of folds."""
    fitted = fit_calibration(comparisons, sets=sets, **options)
    for warning in threshold_warnings(fitted, comparisons):
        note(*warning)
    pairs = comparisons.hardest()
    found = roc(pairs.distance, pairs.same).thinned(200)
    finite = np.isfinite(found.threshold)
    curve = {
        name: [float(f"{v:.6g}") for v in getattr(found, name)[finite]]
        for name in ("threshold", "far", "frr")
    }
    figures = {"eer": fitted.eer, "eer_ci": fitted.eer_ci, "curve": curve}
    return CalibrationReport(fitted, comparisons, figures)


def fit_calibration(
    comparisons: Comparisons,
    *,
    sets: Sequence[ReferenceSet] = (),
    far: float | None = None,
    prior: float = 0.5,
    unseen_classes: bool = True,
    bootstrap: int = 200,
    seed: int = 0,
) -> Calibration:
    """Choose the thresholds and fit the probabilities; arguments as for `calibrate`.

    Threshold and probability are fitted against skilled forgeries where there are any (see
    `Comparisons.hardest`); identification always against random impostors.
    """
    return Calibration(
        **dict(fit_threshold(comparisons, far=far, prior=prior, bootstrap=bootstrap, seed=seed)),
        unseen_classes=unseen_classes,
        identification=fit_identification(comparisons, seed=seed),
        references=fit_references(sets, far=far, prior=prior, seed=seed),
    )


def threshold_warnings(fit: Calibration, comparisons: Comparisons) -> Iterator[Note]:
    """Yield warnings about a threshold and the comparisons that it was fitted on, each with a remedy.

    Their codes begin with ``threshold-``, since a new threshold makes them obsolete.
    """
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
    elif fit.far is not None and fit.references and not all(row.supported for row in fit.references.rows):
        text = f"the thresholds for several references do not support a false accept rate of {fit.far:g}"
        least = min(row.n_impostor for row in fit.references.rows)
        yield Note("threshold-references-unsupported", f"{text}: they rest on {least:,} impostor comparisons")
    if (warning := unknown_probes_pass(comparisons, fit.threshold)) is not None:
        yield warning


def unknown_probes_pass(comparisons: Comparisons, threshold: float) -> Note | None:
    """Return a warning about a threshold that rejects forgeries but accepts random impostors."""
    if not comparisons.forged.any():
        return None
    forgeries, random = (
        float(np.mean(found <= threshold)) if len(found := comparisons.against(kind).impostor) else 0.0
        for kind in ("skilled", "random")
    )
    if random <= max(2 * forgeries, 0.02):
        return None
    return Note(
        "threshold-random-impostors",
        f"the threshold was chosen against forgeries and accepts more random impostors ({random:.3f}) than"
        f" forgeries ({forgeries:.3f}): forgeries may differ from genuine images in something other than"
        " the writing. Run twinned check",
    )
