"""Fit the calibration of a model: thresholds for two images, for sets of references and for galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data.datasets import ImageSet
from ..metrics.comparisons import Comparator, Comparisons, Floats, Ints, compare
from ..metrics.roc import roc
from .calibration import Calibration
from .identification import fit_identification
from .reference_sets import ReferenceSet, draw_reference_sets, fit_references
from .threshold_warnings import threshold_warnings
from .thresholds import fit_threshold

if TYPE_CHECKING:
    from ..data.datasets import PairSet
    from ..utils.notes import Note


class CalibrationReport(NamedTuple):
    """Result of `calibrate`.

    Args:
        calibration: Thresholds and probabilities.
        comparisons: Comparisons that they were fitted on.
        figures: Equal error rate and error curve of those comparisons, for `Manifest.held_out`.
        warnings: See `threshold_warnings`.
    """

    calibration: Calibration
    comparisons: Comparisons
    figures: dict[str, Any]
    warnings: list[Note]


def calibrate(
    embeddings: Floats,
    dataset: ImageSet | PairSet,
    comparator: Comparator,
    *,
    rows: Ints | None = None,
    far: float | None = None,
    prior: float = 0.5,
    unseen_classes: bool = True,
    seed: int = 0,
) -> CalibrationReport:
    """Fit thresholds and probabilities to the embeddings of a data set.

    Args:
        embeddings: Shape ``(n, d)``.
        dataset: Labeled images or pairs, best of classes that the encoder was not trained on.
        comparator: Distances between embeddings, for example a model.
        rows: Images of the data set that the embeddings belong to, ascending; all by default.
        far: False accept rate to choose the threshold at, between 0 and 1; equal error by default.
        prior: P(same) in use.
        unseen_classes: False if the encoder was trained on these classes.
        seed: Seed of folds and resampling.

    Raises:
        DataError: If there is no genuine or no impostor comparison.
        SettingError: If ``far`` or ``prior`` is not between 0 and 1.
    """
    comparisons = compare(embeddings, dataset, comparator, rows=rows, seed=seed)
    sets: list[ReferenceSet] = []
    if isinstance(dataset, ImageSet):
        kept = slice(None) if rows is None else rows
        sets = draw_reference_sets(
            embeddings, dataset.labels[kept], comparator.distances, forgery=dataset.forgery[kept], seed=seed
        )
    fitted = fit_calibration(
        comparisons, sets=sets, far=far, prior=prior, unseen_classes=unseen_classes, seed=seed
    )
    figures = held_out_figures(fitted, comparisons)
    return CalibrationReport(fitted, comparisons, figures, list(threshold_warnings(fitted, comparisons)))


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
    """Choose the thresholds and fit the probabilities; the other arguments are those of `calibrate`.

    Where some impostors are skilled forgeries, threshold and probability are fitted against those alone (see
    `Comparisons.hardest`); identification is always fitted against random impostors.

    Args:
        comparisons: Comparisons of classes that the encoder was not trained on.
        sets: Reference sets of the same classes, with probes.
        bootstrap: Number of resampled sets for the intervals.

    Raises:
        DataError: If there is no genuine or no impostor comparison.
        SettingError: If ``far`` or ``prior`` is not between 0 and 1.
    """
    return Calibration(
        **dict(fit_threshold(comparisons, far=far, prior=prior, bootstrap=bootstrap, seed=seed)),
        unseen_classes=unseen_classes,
        identification=fit_identification(comparisons, seed=seed),
        references=fit_references(sets, far=far, prior=prior, seed=seed),
    )


def held_out_figures(calibration: Calibration, comparisons: Comparisons) -> dict[str, Any]:
    """Return the figures that model.json keeps of the comparisons behind a threshold.

    They are the equal error rate, its interval, and the error curve at about 200 thresholds.
    """
    pairs = comparisons.hardest()
    found = roc(pairs.distance, pairs.same).thinned(200)
    finite = np.isfinite(found.threshold)
    curve = {
        name: [float(f"{v:.6g}") for v in getattr(found, name)[finite]]
        for name in ("threshold", "far", "frr")
    }
    return {"eer": calibration.eer, "eer_ci": calibration.eer_ci, "curve": curve}
