"""Figure of an explanation: regions of two images that match."""

from __future__ import annotations

from ..inference.explain import Explanation
from .panels import matches
from .style import Axes


def draw(found: Explanation, *, threshold: float | None, probability: float | None) -> Axes:
    """Draw an explanation with its verdict; see `twinned.visualization.matches`.

    Args:
        found: Result of `twinned.inference.explain.explain`.
        threshold: Threshold of the model; None if it has none.
        probability: P(same) at this distance; None without a threshold.
    """
    title = f"Distance {found.distance:.4g}"
    if threshold is not None:
        verdict = "same" if found.distance <= threshold else "different"
        title = f"Verdict: {verdict}. {title}, threshold {threshold:.4g}, P(same) {probability:.3f}"
    color = (
        "Blue: contribution of a region to the similarity. Orange: negative contribution."
        if found.method == "exact"
        else "Blue: covering the region increases the distance. Orange: decreases it."
    )
    return matches(
        found.left,
        found.right,
        left_map=found.left_share,
        right_map=found.right_share,
        links=found.strongest(),
        title=title,
        caption=f"{color} {found.text(threshold)}",
        faint=found.is_weak(threshold),
    )
