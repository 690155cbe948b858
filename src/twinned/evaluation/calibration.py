"""All that a model stores of its calibration: thresholds for two images, for references, for galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics.comparisons import Comparisons
from ..metrics.roc import roc
from .identification import Identification, fit_identification
from .reference_sets import ReferenceSet, ReferenceThresholds, fit_references
from .thresholds import FittedThreshold, fit_threshold


class Calibration(FittedThreshold):
    """Threshold and probability for two images, and what is stored beside them.

    Args:
        unseen_classes: False where the encoder was trained on these classes: a threshold too hopeful.
        identification: Thresholds for galleries.
        references: Thresholds for several references of one class; None where none could be fitted.
    """

    unseen_classes: bool
    identification: Identification
    references: ReferenceThresholds | None = None

    def identification_threshold(
        self, labels_in_gallery: int, fpir: float = 0.01, *, images_per_label: float = 1.0
    ) -> float:
        """The threshold for 1 to N: a stranger is taken for somebody at most at the rate ``fpir``.

        It grows stricter with the gallery. It is for the distance to the closest image of each label.

        Args:
            labels_in_gallery: How many labels a probe is compared with, at least 1.
            fpir: Target false positive identification rate, between 0 and 1.
            images_per_label: How many images each label has, on average.

        Raises:
            SettingError: If a number is out of range.
        """
        return self.identification.at(labels_in_gallery, fpir, images_per_label)


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
    """Choose the thresholds and fit the probabilities.

    Where some impostors are skilled forgeries, threshold and probability are fitted against those alone (see
    `Comparisons.hardest`); identification always against strangers.

    Args:
        comparisons: Of classes that the encoder was not trained on.
        sets: References of the same classes and probes, for thresholds of their own.
        far: The false accept rate to hold, between 0 and 1; equal error by default.
        prior: P(same) before looking; stored as the default of `FittedThreshold.probability`.
        unseen_classes: False where the classes were seen in training after all.
        bootstrap: How many resampled sets the intervals come from.
        seed: Of folds, resampling and galleries.

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
    """What model.json says of the comparisons that a threshold was fitted on.

    The equal error rate, its interval, and how false accepts and false rejects trade, in 200 points or so.
    """
    pairs = comparisons.hardest()
    found = roc(pairs.distance, pairs.same).thinned(200)
    finite = np.isfinite(found.threshold)
    curve = {
        name: [float(f"{v:.6g}") for v in getattr(found, name)[finite]]
        for name in ("threshold", "far", "frr")
    }
    return {"eer": calibration.eer, "eer_ci": calibration.eer_ci, "curve": curve}
