"""Verification, identification and calibration: figures, thresholds, probabilities, and their intervals.

Every function takes a **distance, lower is closer**, and decides ``same = distance <= threshold``. A
comparison of two images of one class is **genuine**, any other one is an **impostor**. FAR is the share of
impostors that are accepted as the same, FRR the share of genuine comparisons that are rejected. Rates are
fractions of 1.

    calibration         thresholds and probabilities that a model stores
    comparison          two models on the same data, paired over classes
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
    from .calibration import Calibration as Calibration
    from .comparison import Comparison as Comparison
    from .comparison import compare_evaluations as compare_evaluations
    from .results import Evaluation as Evaluation
    from .verification import VerificationResult as VerificationResult
    from .verification import evaluate_verification as evaluate_verification
    from .verification import reliability as reliability

if not TYPE_CHECKING:  # would make every name known to type checkers
    __getattr__, __all__ = lazy_attributes(
        __name__,
        {
            ".metrics.comparisons": "Comparisons",
            "calibration": "Calibration",
            "comparison": "Comparison compare_evaluations",
            "results": "Evaluation",
            "verification": "VerificationResult evaluate_verification reliability",
        },
    )
