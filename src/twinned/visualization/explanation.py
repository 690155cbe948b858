"""Picture of an explanation."""

from __future__ import annotations

from typing import Any

from ..inference.explain import Explanation


def draw(found: Explanation, *, threshold: float, probability: float) -> Any:
    """The explanation as a picture; see `twinned.visualization.matches`.

    Args:
        found: Of `explain`.
        threshold: The model's.
        probability: P(same) at this distance.

    Returns:
        Matplotlib axes.
    """
    from .. import visualization

    verdict = "the same" if found.distance <= threshold else "different"
    if found.method == "exact":
        caption = (
            f"Blue: a region's share of the similarity; all add up to {found.left_share.sum():.3f}."
            " Orange: speaks against. Lines: the pairs of regions with the largest shares."
        )
    else:
        most = max(float(abs(found.left_share).max()), float(abs(found.right_share).max()))
        caption = (
            f"Blue: covering it moves the images apart, by at most {most:.2g}. Orange: brings them closer."
            " Lines: regions that count together."
        )
    return visualization.matches(
        found.left,
        found.right,
        left_map=found.left_share,
        right_map=found.right_share,
        links=found.strongest(),
        title=f"Said to be {verdict}: distance {found.distance:.4g}, threshold {threshold:.4g},"
        f" P(same) {probability:.3f}",
        caption=caption,
    )
