"""ROC curves of resampled classes: what another draw of people, writers or characters would have given.

Classes are drawn with replacement. A class drawn w times gives each of its genuine comparisons the
weight w, and an impostor comparison of two classes weighs the product of both. What two copies of one
class have in common is left out: it would be genuine and identical.

References:
    Snijders & Borgatti, Connections 1999: the vertex bootstrap.
    Bolle, Ratha & Pankanti, CVIU 2004: resampling subjects, since comparisons are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .comparisons import Comparisons, Floats, Ints
from .roc import (
    Roc,
    Tally,
    coarse,
    roc_of,
    tally_sorted,
)

_KEPT = 500_000  # about as many comparisons take part in each replicate


def class_count(comparisons: Comparisons) -> int:
    """How many independent units the replicates draw from: the classes, from three on; else the pairs."""
    classes = comparisons.n_classes
    return classes if classes > 2 else len(comparisons)


def replicates(comparisons: Comparisons, *, count: int = 200, seed: int = 0) -> Iterator[Roc]:
    """ROC curves of ``count`` resampled sets, on one common grid of thresholds.

    The grid has every distinct distance, or about 4,000 of them where there are more, finely where FAR
    or FRR is small. Above about half a million comparisons the crowded cells of the grid are thinned:
    of each cell's comparisons a number evenly spaced by distance stands for all of it, so the rare
    comparisons that settle a low FAR all take part. With one or two classes there is no other draw of
    classes, and single comparisons are resampled.

    Args:
        comparisons: With at least one genuine and one impostor comparison.
        count: How many curves; a draw without a genuine or an impostor comparison gives none.
        seed: Of the draws.
    """
    pairs = comparisons.ascending()
    grid = coarse(tally_sorted(pairs.distance, pairs.same))
    left, right = pairs.left, pairs.right
    if comparisons.n_classes <= 2:
        left = right = np.arange(len(pairs))
    units = max(int(left.max()), int(right.max())) + 1
    right = np.where(left == right, units, right)  # unit number `units` is always there, once
    kept = max(1, _KEPT // (2 * len(grid.distance)))
    genuine = _Cells(grid.genuine, left[pairs.same], right[pairs.same], kept)
    impostor = _Cells(grid.impostor, left[~pairs.same], right[~pairs.same], kept)
    present = np.unique(
        np.concatenate([genuine.left, genuine.right, impostor.left, impostor.right, [units]])
    )[:-1]
    random = np.random.default_rng(seed)
    weight = np.ones(units + 1)
    for _ in range(count):
        drawn = random.integers(len(present), size=len(present))
        weight[present] = np.bincount(drawn, minlength=len(present))
        weights = Tally(grid.distance, genuine.weigh(weight), impostor.weigh(weight))
        if weights.genuine.any() and weights.impostor.any():
            yield roc_of(weights)


class _Cells:
    """Comparisons of one kind, ascending by distance, cut into the cells of the grid and thinned."""

    def __init__(self, sizes: Ints, left: Ints, right: Ints, most: int) -> None:
        self.cells, self.filled = len(sizes), np.flatnonzero(sizes)
        size = sizes[self.filled]
        taken = np.minimum(size, most)
        self.share = size / taken  # how many comparisons each one that is kept stands for
        self.first = np.cumsum(taken) - taken
        position = np.arange(taken.sum()) - np.repeat(self.first, taken)  # within its cell
        row = np.repeat(np.cumsum(size) - size, taken) + (
            (position + 0.5) * np.repeat(self.share, taken)
        ).astype(int)
        self.left, self.right = left[row], right[row]

    def weigh(self, weight: Floats) -> Floats:
        """Total weight in each cell, given the weight of each unit."""
        total = np.zeros(self.cells)
        total[self.filled] = np.add.reduceat(weight[self.left] * weight[self.right], self.first) * self.share
        return total
