"""Verification, identification and calibration: figures, thresholds, probabilities, and their intervals.

A distance is at least 0, lower is closer, and ``same = distance <= threshold``. A comparison of two images of
one class is **genuine**, any other one an **impostor**. FAR is the share of impostors that are accepted as
the same, FRR the share of genuine comparisons that are rejected. Rates are fractions of 1.
"""

from ..utils.lazy import lazy_attributes

__getattr__, __all__ = lazy_attributes(__name__, __file__)
