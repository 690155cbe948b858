"""Losses on triplets: ``loss(positive, negative, reduction="mean")``.

- ``positive``: distance from the anchor to an image of its class, shape ``(triplets,)``.
- ``negative``: distance from the anchor to an image of another class, shape ``(triplets,)``.
- ``reduction``: ``"mean"`` returns the mean cost, a scalar; ``"none"`` one cost for each triplet.

A `DataError` is raised if the shapes differ or there are no triplets.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from .base import Loss
from .inputs import Reduction, check_positive, reduce, to_float32

__all__ = ["SoftTripletLoss", "TripletLoss"]


class TripletLoss(Loss):
    """Require an image to be closer to its own class than to any other, by a margin.

    A triplet costs ``max(0, positive - negative + margin)``. A triplet in order by the margin costs nothing
    and gets no gradient. Soon most triplets are, so mine the others (`miners.SemiHard`).

    Args:
        margin: Required difference, in the units of the distances, above 0.

    Example:
        >>> import torch
        >>> positive, negative = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 1.0])
        >>> TripletLoss(margin=0.25)(positive, negative, reduction="none").tolist()
        [0.25, 0.0]

    See Also:
        ContrastiveLoss: Requires one distance for all classes, so that one threshold fits.

    References:
        Schroff, Kalenichenko & Philbin, CVPR 2015 (FaceNet), eq. 3, with margin 0.2 on squared Euclidean
        distances of unit vectors. The paper sums where this loss averages.
    """

    kind = "triplet"

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = check_positive("margin", margin)

    def forward(self, positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Compute the loss of triplets."""
        positive, negative = _checked(positive, negative)
        return reduce((positive - negative + self.margin).clamp(min=0), reduction)


class SoftTripletLoss(Loss):
    """Require an image to be closer to its own class than to any other, without a margin.

    A triplet costs ``log(1 + exp(positive - negative))``, so every triplet keeps some gradient. Use it with
    distances without an upper bound: Euclidean, with embeddings that are not scaled to unit length.

    Example:
        >>> import torch
        >>> SoftTripletLoss()(torch.tensor([1.0]), torch.tensor([1.0])).item()
        0.6931...

    References:
        Hermans, Beyer & Leibe, "In defense of the triplet loss", 2017, the "soft margin".
    """

    kind = "triplet"

    def forward(self, positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Compute the loss of triplets."""
        positive, negative = _checked(positive, negative)
        return reduce(F.softplus(positive - negative), reduction)


def _checked(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    if positive.ndim != 1 or positive.shape != negative.shape or len(positive) == 0:
        shapes = f"{tuple(positive.shape)} and negative {tuple(negative.shape)}"
        raise DataError(f"positive has shape {shapes}. Both must be (triplets,), with at least one triplet")
    return to_float32(positive), to_float32(negative)
