"""Verification, identification and calibration: figures, thresholds, probabilities, and their intervals.

A distance is at least 0, lower is closer, and ``same = distance <= threshold``. A comparison of two images of
one class is **genuine**, any other one an **impostor**. FAR is the share of impostors that are accepted as
the same, FRR the share of genuine comparisons that are rejected. Rates are fractions of 1.
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
