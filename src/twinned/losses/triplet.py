"""Losses on triplets: ``(positive, negative)``, two distances from one anchor.

Each comes as a function, and as a small module that holds its settings. With ``reduction="none"``
both give one cost a triplet, where ``"mean"`` averages them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from .inputs import (
    Reduction,
    check_positive,
    reduce,
    to_float32,
)


def triplet_loss(
    positive: Tensor, negative: Tensor, *, margin: float = 0.2, reduction: Reduction = "mean"
) -> Tensor:
    """Ask that an image be closer to its own class than to any other, by a margin.

    A triplet costs ``max(0, positive - negative + margin)``. One that is in order by the
    margin costs nothing and gets no gradient; soon most are, so mine them (`miners.semi_hard`).

    Args:
        positive: Distance from the anchor to an image of its class, shape ``(triplets,)``.
        negative: Distance from the anchor to an image of another class, shape ``(triplets,)``.
        margin: In the units of the distances.
        reduction: ``"mean"``, or ``"none"`` for one cost a triplet.

    Returns:
        Mean cost over the triplets: a scalar, at least 0.

    Raises:
        DataError: If the shapes differ or there are no triplets.
        SettingError: If ``margin`` is not positive.

    Example:
        >>> import torch
        >>> positive, negative = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 1.0])
        >>> triplet_loss(positive, negative, margin=0.25, reduction="none").tolist()
        [0.25, 0.0]

    See Also:
        contrastive_loss: Asks for a distance, the same for all classes, so a threshold fits.

    References:
        Schroff, Kalenichenko & Philbin, CVPR 2015 (FaceNet), eq. 3, with margin 0.2 on
        squared Euclidean distances of unit vectors; the paper sums where we average.
    """
    check_positive("margin", margin)
    positive, negative = _checked(positive, negative)
    return reduce((positive - negative + margin).clamp(min=0), reduction)


def soft_triplet_loss(positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """`triplet_loss` without a margin to choose: every triplet keeps some gradient.

    A triplet costs ``log(1 + exp(positive - negative))``. It goes on pulling where the hinge
    stops; use it with distances that can grow (Euclidean, not of unit vectors).

    Args and returns as `triplet_loss`.

    Example:
        >>> import torch
        >>> soft_triplet_loss(torch.tensor([1.0]), torch.tensor([1.0])).item()
        0.6931...

    References:
        Hermans, Beyer & Leibe, "In defense of the triplet loss", 2017, the "soft margin".
    """
    positive, negative = _checked(positive, negative)
    return reduce(F.softplus(positive - negative), reduction)


class TripletLoss(nn.Module):
    """`triplet_loss` with its margin, in the units of whichever distance is used."""

    kind = "triplet"
    distance = None

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = check_positive("margin", margin)

    def forward(self, positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        return triplet_loss(positive, negative, margin=self.margin, reduction=reduction)


class SoftTripletLoss(nn.Module):
    """`soft_triplet_loss`, which has no settings."""

    kind = "triplet"
    distance = None

    def forward(self, positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        return soft_triplet_loss(positive, negative, reduction=reduction)


def _checked(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    if positive.ndim != 1 or positive.shape != negative.shape or len(positive) == 0:
        raise DataError(
            f"positive has shape {tuple(positive.shape)} and negative {tuple(negative.shape)}; "
            "give two of shape (triplets,), at least one triplet"
        )
    return to_float32(positive), to_float32(negative)
