"""Verification, identification and calibration: figures, thresholds, probabilities, and their intervals.

Every function takes a **distance, lower is closer**, and decides ``same = distance <= threshold``. A
comparison of two images of one class is **genuine**, any other one is an **impostor**. FAR is the share of
impostors that are accepted as the same, FRR the share of genuine comparisons that are rejected. Rates are
fractions of 1.

    calibration         thresholds and probabilities that a model stores
    enrollment          gallery labels by the nearest image or by the mean of all
    fitting             all of a model's thresholds and probabilities at one call
    identification      thresholds for 1:N search
    likelihood_ratio    distance to log likelihood ratio; Cllr
    protocols           evaluation by classes, pairs, LFW's folds, Omniglot's runs
    reference_sets      several references of one class
    results             `Evaluation` and its metrics
    threshold_warnings  warnings about a fitted threshold
    thresholds          a threshold and a probability, with the counts behind them
    verification        all verification figures of one model on one data set
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from ..metrics.comparisons import Comparisons as Comparisons
    from ..metrics.comparisons import compare_all as compare_all
    from ..metrics.comparisons import compare_pairs as compare_pairs
    from ..metrics.comparisons import count_pairs as count_pairs
    from ..metrics.open_set import OpenSet as OpenSet
    from ..metrics.open_set import open_set as open_set
    from ..metrics.roc import Folds as Folds
    from ..metrics.roc import Roc as Roc
    from ..metrics.roc import auc as auc
    from ..metrics.roc import best_threshold as best_threshold
    from ..metrics.roc import d_prime as d_prime
    from ..metrics.roc import eer as eer
    from ..metrics.roc import far_frr as far_frr
    from ..metrics.roc import lfw_folds as lfw_folds
    from ..metrics.roc import roc as roc
    from ..metrics.roc import tar_at_far as tar_at_far
    from ..metrics.roc import threshold_at_eer as threshold_at_eer
    from ..metrics.roc import threshold_at_far as threshold_at_far
    from .calibration import Calibration as Calibration
    from .calibration import FittedThreshold as FittedThreshold
    from .calibration import Identification as Identification
    from .calibration import Isotonic as Isotonic
    from .calibration import Logistic as Logistic
    from .calibration import ReferenceThreshold as ReferenceThreshold
    from .calibration import ReferenceThresholds as ReferenceThresholds
    from .enrollment import Enrollment as Enrollment
    from .enrollment import choose_enrollment as choose_enrollment
    from .enrollment import nearest_label as nearest_label
    from .fitting import CalibrationReport as CalibrationReport
    from .fitting import calibrate as calibrate
    from .fitting import fit_calibration as fit_calibration
    from .likelihood_ratio import cllr as cllr
    from .likelihood_ratio import min_cllr as min_cllr
    from .reference_sets import ReferenceSet as ReferenceSet
    from .reference_sets import compare_references as compare_references
    from .reference_sets import distinct_probes as distinct_probes
    from .reference_sets import draw_reference_sets as draw_reference_sets
    from .reference_sets import fit_references as fit_references
    from .results import Evaluation as Evaluation
    from .thresholds import fit_threshold as fit_threshold
    from .thresholds import impostors_needed as impostors_needed
    from .thresholds import supported as supported
    from .verification import Band as Band
    from .verification import ClassErrors as ClassErrors
    from .verification import Mistakes as Mistakes
    from .verification import Reliability as Reliability
    from .verification import TarAtFar as TarAtFar
    from .verification import VerificationResult as VerificationResult
    from .verification import class_errors as class_errors
    from .verification import evaluate_verification as evaluate_verification
    from .verification import mistakes as mistakes
    from .verification import reliability as reliability

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        ".metrics.comparisons": "Comparisons compare_all compare_pairs count_pairs",
        ".metrics.open_set": "OpenSet open_set",
        ".metrics.roc": "Folds Roc auc best_threshold d_prime eer far_frr lfw_folds roc tar_at_far"
        " threshold_at_eer threshold_at_far",
        "calibration": "Calibration FittedThreshold Identification Isotonic Logistic ReferenceThreshold"
        " ReferenceThresholds",
        "enrollment": "Enrollment choose_enrollment nearest_label",
        "fitting": "CalibrationReport calibrate fit_calibration",
        "likelihood_ratio": "cllr min_cllr",
        "reference_sets": "ReferenceSet compare_references distinct_probes draw_reference_sets"
        " fit_references",
        "results": "Evaluation",
        "thresholds": "fit_threshold impostors_needed supported",
        "verification": "Band ClassErrors Mistakes Reliability TarAtFar VerificationResult class_errors"
        " evaluate_verification mistakes reliability",
    },
)
