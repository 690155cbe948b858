"""Fit the calibration of a model: thresholds for two images, for sets of references and for galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data.datasets import ImageSet
from ..metrics.comparisons import Comparator, Comparisons, Floats, compare
from ..metrics.roc import roc
from ..utils.notes import note
from .calibration import Calibration
from .identification import fit_identification
from .reference_sets import ReferenceSet, draw_reference_sets, fit_references
from .threshold_warnings import threshold_warnings
from .thresholds import fit_threshold

if TYPE_CHECKING:
    from ..data.datasets import PairSet


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
