"""Losses on pairs: ``(distance, same)``. They are handed distances and never pick their own.

Each comes as a function, and as a small module that holds its settings. With ``reduction="none"``
both give one cost a pair, where ``"mean"`` averages them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from .inputs import (
    Reduction,
    check_positive,
    reduce,
    to_float32,
)


def contrastive_loss(
    distance: Tensor, same: Tensor, *, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """Pull same-class pairs together and push the others past a margin.

    A pair at distance ``d`` costs ``d**2 / 2`` if it is the same class, else
    ``max(0, margin - d)**2 / 2``. Different pairs beyond the margin cost nothing
    and get no gradient: if the loss goes flat, mine harder pairs.

    Args:
        distance: Shape ``(pairs,)``, at least 0, lower is closer.
        same: Shape ``(pairs,)``, boolean, True where both images are one class.
        margin: In the units of ``distance``.
        reduction: ``"mean"``, or ``"none"`` for one cost a pair.

    Returns:
        Mean cost over the pairs: a scalar, at least 0.

    Raises:
        DataError: If the shapes differ, ``same`` is not boolean, or there are no pairs.
        SettingError: If ``margin`` is not positive.

    Example:
        Only the first pair is the same class. The costs are 0, 0.5**2 / 2, 0.

        >>> distance = torch.tensor([0.0, 0.5, 2.0])
        >>> same = torch.tensor([True, False, False])
        >>> contrastive_loss(distance, same, reduction="none").tolist()
        [0.0, 0.125, 0.0]

    See Also:
        triplet_loss: Asks only for the right order, so it needs no threshold.

    References:
        Hadsell, Chopra & LeCun, CVPR 2006, eq. 4. The paper marks a similar
        pair Y = 0 (ours is True) and sums where we average.
    """
    check_positive("margin", margin)
    distance = _checked(distance, same)
    costs = torch.where(same, distance, (margin - distance).clamp(min=0)).square() / 2
    return reduce(costs, reduction)


def chopra_loss(
    distance: Tensor, same: Tensor, *, bound: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """Pull same-class pairs together and push the others away, ever more gently.

    A pair at Manhattan distance ``d`` costs ``2 / bound * d**2`` if it is the same class,
    else ``2 * bound * exp(-2.77 * d / bound)``. A different pair is never quite far
    enough, so there is no margin to choose, and none without gradient.

    Args:
        distance: Manhattan distances, shape ``(pairs,)``, lower is closer.
        same: Shape ``(pairs,)``, boolean, True where both images are one class.
        bound: The largest distance that can occur (the paper's Q): with ``d`` sigmoid
            outputs it is ``d``. At that distance a different pair costs 6 % of what it costs at 0.
        reduction: ``"mean"``, or ``"none"`` for one cost a pair.

    Returns:
        Mean cost over the pairs: a scalar, above 0.

    Raises:
        DataError: If the shapes differ, ``same`` is not boolean, or there are no pairs.
        SettingError: If ``bound`` is not positive.

    Example:
        >>> distance = torch.tensor([0.5, 0.0])
        >>> same = torch.tensor([True, False])
        >>> chopra_loss(distance, same, reduction="none").tolist()
        [0.5, 2.0]

    References:
        Chopra, Hadsell & LeCun, CVPR 2005, eq. 8 and 9 (numbered from memory). The paper
        marks an impostor Y = 1 (ours is False).
    """
    check_positive("bound", bound)
    distance = _checked(distance, same)
    genuine = 2 / bound * distance.square()
    impostor = 2 * bound * torch.exp(-2.77 / bound * distance)
    return reduce(torch.where(same, genuine, impostor), reduction)


def pair_cross_entropy(logit: Tensor, same: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Teach a learned head to say whether a pair is the same class.

    It takes the head's logit rather than its score ``sigmoid(logit)``, since the logarithm
    of a rounded score is infinite where the head is sure and wrong. HIGHER is closer here, and
    here alone; everywhere else the head's distance is ``1 - score``.

    Args:
        logit: Shape ``(pairs,)``, any number; above 0 says same.
        same: Shape ``(pairs,)``, boolean, True where both images are one class.
        reduction: ``"mean"``, or ``"none"`` for one cost a pair.

    Returns:
        Mean cost over the pairs in nats: a scalar, at least 0; 0.693 is guessing.

    Raises:
        DataError: If the shapes differ, ``same`` is not boolean, or there are no pairs.

    Example:
        >>> pair_cross_entropy(torch.tensor([0.0, -200.0]), torch.tensor([True, False])).item()
        0.3465...

    References:
        Koch, Zemel & Salakhutdinov, ICML deep learning workshop 2015, without
        its L2 penalty, which belongs to the optimiser.
    """
    logit = _checked(logit, same)
    costs = F.binary_cross_entropy_with_logits(logit, same.to(logit.dtype), reduction="none")
    return reduce(costs, reduction)


class ContrastiveLoss(nn.Module):
    """`contrastive_loss` with its margin, in the units of whichever distance is used."""

    kind = "pair"
    distance = None
    input_kind = "distance"

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = check_positive("margin", margin)

    def forward(self, distance: Tensor, same: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        return contrastive_loss(distance, same, margin=self.margin, reduction=reduction)


class ChopraLoss(nn.Module):
    """`chopra_loss` with its bound. For Manhattan distances only."""

    kind = "pair"
    distance = "manhattan"
    input_kind = "distance"

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = check_positive("bound", bound)

    def forward(self, distance: Tensor, same: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        return chopra_loss(distance, same, bound=self.bound, reduction=reduction)


class PairCrossEntropy(nn.Module):
    """`pair_cross_entropy`. For a network with a learned head: it wants the head's logit, no distance."""

    kind = "pair"
    distance = None
    input_kind = "logit"

    def forward(self, logit: Tensor, same: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        return pair_cross_entropy(logit, same, reduction=reduction)


def _checked(distance: Tensor, same: Tensor) -> Tensor:
    if distance.ndim != 1 or distance.shape != same.shape or len(distance) == 0:
        raise DataError(
            f"distance has shape {tuple(distance.shape)} and same {tuple(same.shape)}; "
            "give two of shape (pairs,), at least one pair"
        )
    if same.dtype != torch.bool:
        raise DataError(f"same is {same.dtype}; give booleans, True where both images are one class")
    return to_float32(distance)
