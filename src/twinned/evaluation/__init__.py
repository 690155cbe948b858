"""Verification: are two images the same? Figures, thresholds, probabilities, and how sure each of them is.

The sign is stated once, here, and holds everywhere: every function takes a **distance, lower is closer**, and
``same = distance <= threshold``. A comparison of two images of one class is **genuine**, any other one is an
**impostor**. FAR is the share of impostors taken for the same, FRR the share of genuine ones that are not.
Rates are fractions of 1.

    comparisons     distances of pairs, and the classes behind them
    curves          the exact ROC curve and every figure read off it
    resampling      what other classes would have given: intervals
    evidence        from distance to likelihood ratio; Cllr
    identification  thresholds for 1 to N; open-set rates
    enrolment       by the nearest image of a label, or by their mean
    thresholds      threshold and probability, and the counts behind them
    references      several references of one class
    calibration     all that a model stores of it
    doubts          what must be said of it
    results         all figures of one model on one data set
"""

from __future__ import annotations

from ..metrics.comparisons import (
    Comparisons,
    Distances,
    compare_all,
    compare_pairs,
    count_pairs,
)
from ..metrics.open_set import OpenSet, open_set
from ..metrics.roc import (
    Folds,
    Roc,
    auc,
    best_threshold,
    d_prime,
    eer,
    far_frr,
    lfw_folds,
    roc,
    tar_at_far,
    threshold_at_eer,
    threshold_at_far,
)
from .calibration import Calibration, fit_calibration, held_out_figures
from .enrollment import Enrolment, choose_enrolment, nearest_label
from .identification import Identification
from .likelihood_ratio import (
    Isotonic,
    Logistic,
    cllr,
    min_cllr,
)
from .reference_sets import (
    ReferenceSet,
    ReferenceThreshold,
    ReferenceThresholds,
    compare_references,
    distinct_probes,
    fit_references,
    draw_reference_sets,
)
from .threshold_warnings import (
    FEW_CLASSES,
    is_threshold_warning,
    threshold_warnings,
    unknown_probes_pass,
)
from .thresholds import (
    FittedThreshold,
    fit_threshold,
    impostors_needed,
    supported,
)
from .verification import (
    Band,
    ClassErrors,
    Mistakes,
    Reliability,
    TarAtFar,
    VerificationResult,
    class_errors,
    evaluate_verification,
    mistakes,
    reliability,
)

__all__ = [
    "FEW_CLASSES",
    "Band",
    "Calibration",
    "ClassErrors",
    "Comparisons",
    "Distances",
    "Enrolment",
    "FittedThreshold",
    "Folds",
    "Identification",
    "Isotonic",
    "Logistic",
    "Mistakes",
    "OpenSet",
    "ReferenceSet",
    "ReferenceThreshold",
    "ReferenceThresholds",
    "Reliability",
    "Roc",
    "TarAtFar",
    "VerificationResult",
    "auc",
    "best_threshold",
    "choose_enrolment",
    "class_errors",
    "cllr",
    "compare_all",
    "compare_pairs",
    "compare_references",
    "count_pairs",
    "d_prime",
    "distinct_probes",
    "eer",
    "evaluate_verification",
    "far_frr",
    "fit_calibration",
    "fit_references",
    "fit_threshold",
    "held_out_figures",
    "impostors_needed",
    "is_threshold_warning",
    "lfw_folds",
    "min_cllr",
    "mistakes",
    "nearest_label",
    "open_set",
    draw_reference_sets,
    "reliability",
    "roc",
    "supported",
    "tar_at_far",
    "threshold_at_eer",
    "threshold_at_far",
    "threshold_warnings",
    "unknown_probes_pass",
]
