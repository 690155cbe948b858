"""What a network makes of images that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .verification import Comparisons, ReferenceSet
from .verification import eer as equal_error_rate


class Judged(NamedTuple):
    """What a network makes of images that it was not trained on.

    Args:
        comparisons: All of them.
        recall: Share of images whose nearest other one is of their class; None for pairs, which have none.
        images: How many there are.
        sets: References and probes drawn from them; none for pairs.
        relation: Share of pairs whose relation is told; None where none is asked for.
    """

    comparisons: Comparisons
    recall: float | None
    images: int
    sets: Sequence[ReferenceSet] = ()
    relation: float | None = None

    @property
    def eer(self) -> float:
        """Equal error rate."""
        return float(equal_error_rate(self.comparisons.distance, self.comparisons.same))

    @property
    def errors(self) -> float:
        """Both kinds of error, by which networks are put in order: lower is better."""
        return self.eer + (0 if self.recall is None else 1 - self.recall)

    def __str__(self) -> str:
        recall = "" if self.recall is None else f", recall@1 {self.recall:.4f}"
        relation = "" if self.relation is None else f", relations told {self.relation:.4f}"
        return f"equal error rate {self.eer:.4f}{recall}{relation}"

    @staticmethod
    def together(parts: Sequence[Judged]) -> Judged:
        """Of several networks, each on classes of its own, as cross-fitting makes them."""
        images = [part.images for part in parts]
        recall = float(np.average([part.recall or 0.0 for part in parts], weights=images))
        sets = [one for part in parts for one in part.sets]
        return Judged(
            Comparisons.concatenate([part.comparisons for part in parts]), recall, sum(images), sets
        )
