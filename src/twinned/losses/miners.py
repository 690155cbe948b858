"""Miners select the comparisons of a batch that a loss is trained on.

Each is a module called ``miner(distance, labels)``:

- ``distance``: shape ``(n, m)``, at least 0, lower is closer. Row ``i`` and column ``i`` are the same image
  of the batch; columns from ``n`` on are those of a memory.
- ``labels``: labels of the columns, shape ``(m,)``; the first ``n`` are those of the rows.

The result is (anchor, positive, negative), or the pairs (anchor, positive, anchor, negative): rows of
``distance`` for anchors, columns for the others. Every loss accepts either, as do those of
pytorch-metric-learning. All are empty if the batch has nothing to select.

| name | miner | selection |
| --- | --- | --- |
| all | `AllPairs` | Every comparison; most soon cost nothing |
| batch-hard | `BatchHard` | Farthest positive and nearest negative of each image; needs clean labels |
| semi-hard | `SemiHard` | For each genuine pair a negative just beyond it; suits the triplet loss |
| multi-similarity | `MultiSimilarity` | Pairs that are harder than the image's hardest of the other kind |

A matrix that does not hold distances, such as the embeddings themselves, is refused with a `DataError`.
The number of selected comparisons depends on the values, so on a GPU a miner waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..distances import EXPECTED, check_matrix
from ..errors import DataError
from ..utils.registry import Part, Registry
from .base import AnyMiner, OptionsModule, check_miner
from .inputs import Indices, pair_masks

_INF = float("inf")


class Miner(OptionsModule):
    """Base class of miners: a subclass implements `select`."""

    def forward(self, distance: Tensor, labels: Tensor) -> Indices:
        """Select comparisons of a batch.

        Args:
            distance: Shape ``(n, m)``, at least 0, lower is closer.
            labels: Shape ``(m,)``, integers.

        Raises:
            DataError: If the shapes do not fit, or ``distance`` is not a distance matrix.
        """
        if distance.ndim != 2 or labels.shape != distance.shape[1:] or not 0 < len(distance) <= len(labels):
            shapes = f"{tuple(distance.shape)} and labels {tuple(labels.shape)}"
            raise DataError(f"distance has shape {shapes}. They must be (n, m) and (m,); {EXPECTED}")
        check_matrix(distance, what=f"miners.{type(self).__name__}")
        return self.select(distance, *pair_masks(labels, len(distance)))

    def select(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Indices:
        """Select from distances and two boolean masks, all of shape ``(n, m)``."""
        raise NotImplementedError


class AllPairs(Miner):
    """Select every genuine and every impostor pair, each from both ends; for a triplet loss, every triplet.

    Example:
        >>> anchor, positive, other, negative = AllPairs()(torch.zeros(3, 3), torch.tensor([5, 5, 6]))
        >>> list(zip(anchor.tolist(), positive.tolist()))
        [(0, 1), (1, 0)]
        >>> list(zip(other.tolist(), negative.tolist()))
        [(0, 2), (1, 2), (2, 0), (2, 1)]
    """

    def select(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Indices:
        return *positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True)


class BatchHard(Miner):
    """Select one triplet for each image: its farthest positive and its nearest negative.

    Fast and strong on clean data, but an image with a wrong label is always the hardest. Embeddings may
    collapse to one point early; a soft margin, or some steps with `AllPairs` first, avoids it.

    Example:
        >>> distance = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
        >>> [index.tolist() for index in BatchHard()(distance, torch.tensor([5, 5, 6]))]
        [[0, 1], [1, 0], [2, 2]]

    References:
        Hermans, Beyer & Leibe, "In defense of the triplet loss", 2017.
    """

    def select(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Indices:
        farthest = torch.where(positive, distance, -_INF).argmax(1)
        nearest = torch.where(negative, distance, _INF).argmin(1)
        (anchor,) = (positive.any(1) & negative.any(1)).nonzero(as_tuple=True)
        return anchor, farthest[anchor], nearest[anchor]


class SemiHard(Miner):
    """Select one triplet for each genuine pair: the nearest negative farther than the positive.

    FaceNet also requires the negative to lie within the margin. That is not needed here: if the nearest
    negative lies beyond the margin, all do, and the triplet costs nothing. If every negative is nearer than
    the positive, the farthest of them is selected, so that the pair is still trained on.

    Example:
        >>> distance = torch.tensor([[0.0, 1.0, 0.5, 2.0]])  # one row; the other columns are a memory's
        >>> [index.tolist() for index in SemiHard()(distance, torch.tensor([5, 5, 6, 6]))]
        [[0], [1], [3]]

    References:
        Schroff, Kalenichenko & Philbin, CVPR 2015 (FaceNet), eq. 4.
    """

    def select(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Indices:
        anchor, pair = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        rows, negative = distance[anchor], negative[anchor]
        farther = negative & (rows > distance[anchor, pair][:, None])
        nearest = torch.where(farther, rows, _INF).argmin(1)
        farthest = torch.where(negative, rows, -_INF).argmax(1)
        return anchor, pair, torch.where(farther.any(1), nearest, farthest)


class MultiSimilarity(Miner):
    """Select overlapping pairs: positives farther than the nearest negative, negatives nearer than the
    farthest positive, up to a tolerance.

    For `MultiSimilarityLoss`, with cosine distances.

    Args:
        epsilon: Tolerance in the units of the distance; the larger, the more pairs are selected.

    References:
        Wang et al., CVPR 2019, eq. 11 and 12.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        super().__init__()
        self.epsilon = epsilon

    def select(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Indices:
        nearest = torch.where(negative, distance, _INF).amin(1, keepdim=True)
        farthest = torch.where(positive, distance, -_INF).amax(1, keepdim=True)
        # Negated comparisons, so that NaN is selected and shows in the loss.
        hard_positive = positive & ~(distance + self.epsilon <= nearest)
        hard_negative = negative & ~(distance - self.epsilon >= farthest)
        return *hard_positive.nonzero(as_tuple=True), *hard_negative.nonzero(as_tuple=True)


_BUILTIN: dict[str, Any] = {
    "all": AllPairs,
    "batch-hard": BatchHard,
    "semi-hard": SemiHard,
    "multi-similarity": MultiSimilarity,
}
# Miner classes, and the classes and functions of `register_miner`.
MINERS: Registry[Any] = Registry("miner", "twinned.miners", _BUILTIN, check_miner)


def register_miner(name: str) -> Callable[[Part], Part]:
    """Register a miner under a name, as a decorator of a function or of a class without required arguments.

    ``twinned.train(miner=name)`` and ``twinned train --set miner=NAME`` then use it. A miner whose first
    parameter is named ``distance`` is called with a matrix of distances, as those of this module; any other
    with embeddings ``(n, d)``, as those of pytorch-metric-learning. The second argument is the labels, and
    the result indices as above.

    An installed package registers miners by entry points of the group ``twinned.miners``. The name has
    letters, digits and the signs ``. _ -``; one that is taken raises a `SettingError`.
    """
    return MINERS.decorator(name)


def create_miner(name: str) -> AnyMiner:
    """Create a miner by name, with its default options; an unknown name raises a `SettingError`.

    Example:
        >>> create_miner("multi-similarity")
        MultiSimilarity(epsilon=0.1)
    """
    part = MINERS.find(name)
    miner: AnyMiner = part() if isinstance(part, type) else part
    return miner


# Deprecated names of version 0.1.
get = create_miner
all_pairs, batch_hard, semi_hard, multi_similarity = AllPairs(), BatchHard(), SemiHard(), MultiSimilarity()
