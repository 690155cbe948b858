"""Miners choose which comparisons of a batch a loss learns from.

Each is a function ``(distance, labels) -> indices``:

- ``distance``: shape ``(n, m)``, at least 0, lower is closer. Row ``i`` and column ``i`` are the same image
  of the batch; columns from ``n`` on are a memory's.
- ``labels``: of the columns, shape ``(m,)``; the first ``n`` are those of the rows.
- ``indices``: (anchor, positive, negative), or the pairs (anchor, positive, anchor, negative): rows
  of ``distance`` for anchors, columns for the others. Every loss takes either, as do those of
  pytorch-metric-learning. All are empty where the batch has nothing to choose.

| miner            | what it keeps |
| ---------------- | --- |
| all              | every comparison. The plainest; most soon teach nothing |
| batch-hard       | the farthest positive and the nearest negative of each image. For clean labels |
| semi-hard        | for each genuine pair a negative just beyond it. For FaceNet's triplet loss |
| multi-similarity | pairs that are harder than the image's hardest of the other kind |

A matrix that does not hold distances, such as the embeddings themselves, is refused.

How many are chosen depends on the values, so on a GPU a miner waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ..distances import EXPECTED, check_matrix
from ..errors import DataError, SettingError

Indices: TypeAlias = tuple[Tensor, ...]
Miner: TypeAlias = Callable[[Tensor, Tensor], Indices]

_INF = float("inf")


def all_pairs(distance: Tensor, labels: Tensor) -> Indices:
    """Every genuine pair and every impostor pair, each from both ends.

    A triplet loss makes of them every triplet.

    Example:
        >>> anchor, positive, other, negative = all_pairs(torch.zeros(3, 3), torch.tensor([5, 5, 6]))
        >>> list(zip(anchor.tolist(), positive.tolist()))
        [(0, 1), (1, 0)]
        >>> list(zip(other.tolist(), negative.tolist()))
        [(0, 2), (1, 2), (2, 0), (2, 1)]
    """
    positive, negative = _masks("all_pairs", distance, labels)
    return *positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True)


def batch_hard(distance: Tensor, labels: Tensor) -> Indices:
    """One triplet for each image: its farthest positive and its nearest negative.

    Quick and strong on clean data, but a wrong label is always the hardest. Embeddings may collapse
    to one point early on; a soft margin, or some steps with `all_pairs` first, avoids it.

    Example:
        >>> distance = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
        >>> [index.tolist() for index in batch_hard(distance, torch.tensor([5, 5, 6]))]
        [[0, 1], [1, 0], [2, 2]]

    References:
        Hermans, Beyer & Leibe, "In defense of the triplet loss", 2017.
    """
    positive, negative = _masks("batch_hard", distance, labels)
    farthest = torch.where(positive, distance, -_INF).argmax(1)
    nearest = torch.where(negative, distance, _INF).argmin(1)
    (anchor,) = (positive.any(1) & negative.any(1)).nonzero(as_tuple=True)
    return anchor, farthest[anchor], nearest[anchor]


def semi_hard(distance: Tensor, labels: Tensor) -> Indices:
    """One triplet for each genuine pair: the nearest negative that is farther than the positive.

    FaceNet asks besides that it lie within the margin. Nothing is lost without: if the nearest lies
    beyond the margin, so do all, and the triplet costs nothing. Where every negative is nearer than
    the positive, the farthest of them is taken: the least hard, so that the pair is still taught.

    Example:
        >>> distance = torch.tensor([[0.0, 1.0, 0.5, 2.0]])  # one row; the other columns are a memory's
        >>> [index.tolist() for index in semi_hard(distance, torch.tensor([5, 5, 6, 6]))]
        [[0], [1], [3]]

    References:
        Schroff, Kalenichenko & Philbin, CVPR 2015 (FaceNet), eq. 4.
    """
    positive, negative = _masks("semi_hard", distance, labels)
    anchor, pair = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
    rows, negative = distance[anchor], negative[anchor]
    farther = negative & (rows > distance[anchor, pair][:, None])
    nearest = torch.where(farther, rows, _INF).argmin(1)
    farthest = torch.where(negative, rows, -_INF).argmax(1)
    return anchor, pair, torch.where(farther.any(1), nearest, farthest)


def multi_similarity(distance: Tensor, labels: Tensor, *, epsilon: float = 0.1) -> Indices:
    """Pairs that overlap: positives farther than the nearest negative, and negatives nearer than the
    farthest positive, give or take ``epsilon``.

    Made for `losses.multi_similarity_loss`, with cosine distances.

    Args:
        distance: Shape ``(n, m)``, lower is closer.
        labels: Shape ``(m,)``.
        epsilon: In the units of ``distance``. The larger, the more pairs are kept.

    References:
        Wang et al., CVPR 2019, eq. 11 and 12.
    """
    positive, negative = _masks("multi_similarity", distance, labels)
    nearest = torch.where(negative, distance, _INF).amin(1, keepdim=True)
    farthest = torch.where(positive, distance, -_INF).amax(1, keepdim=True)
    # Written as what is left out, so that NaN is chosen and comes out in the loss.
    hard_positive = positive & ~(distance + epsilon <= nearest)
    hard_negative = negative & ~(distance - epsilon >= farthest)
    return *hard_positive.nonzero(as_tuple=True), *hard_negative.nonzero(as_tuple=True)


MINERS: dict[str, Miner] = {
    "all": all_pairs,
    "batch-hard": batch_hard,
    "semi-hard": semi_hard,
    "multi-similarity": multi_similarity,
}


def get(name: str) -> Miner:
    """The miner of that name.

    Raises:
        SettingError: If there is none; the message lists the names.
    """
    try:
        return MINERS[name]
    except KeyError:
        raise SettingError(f"miner {name!r} is not known; choose one of {', '.join(MINERS)}") from None


def _masks(miner: str, distance: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of the comparisons within a class (without itself) and between two: ``(n, m)`` each."""
    if distance.ndim != 2 or labels.ndim != 1 or not 0 < len(distance) <= distance.shape[1] == len(labels):
        raise DataError(
            f"distance has shape {tuple(distance.shape)} and labels {tuple(labels.shape)}; give (n, m) and "
            f"(m,), where the first n columns are the rows; {EXPECTED}"
        )
    check_matrix(distance, what=f"miners.{miner}")
    same = labels[: len(distance), None] == labels[None, :]
    itself = torch.eye(*distance.shape, dtype=torch.bool, device=distance.device)
    return same & ~itself, ~same
