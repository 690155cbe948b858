"""Losses on pairs: ``loss(distance, same, reduction="mean")``.

- ``distance``: shape ``(pairs,)``, at least 0, lower is closer. The caller computes it.
- ``same``: shape ``(pairs,)``, boolean, True for two images of one class. A tensor, or an array as
  `twinned.data.make_pairs` returns it.
- ``reduction``: ``"mean"`` returns the mean cost, a scalar; ``"none"`` one cost for each pair.

A `DataError` is raised if the shapes differ, ``same`` is not boolean, or there are no pairs.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from .base import Loss
from .inputs import Reduction, check_positive, reduce, to_float32

__all__ = ["ChopraLoss", "ContrastiveLoss", "PairCrossEntropy"]

Same: TypeAlias = "Tensor | NDArray[np.bool_]"


class ContrastiveLoss(Loss):
    """Pull same-class pairs together and push the others past a margin.

    A pair at distance ``d`` costs ``d**2 / 2`` if it is the same class, else ``max(0, margin - d)**2 / 2``;
    1/2 is the default factor. Different pairs beyond the margin get no gradient: if the loss goes flat, mine
    harder pairs.

    Args:
        margin: Distance beyond which different pairs cost nothing, in its units, above 0.
        factor: Factor of every cost, above 0: 0.5 as in Hadsell et al., 1 as in the slide deck.

    Example:
        Only the first pair is the same class. The costs are 0, 0.5**2 / 2 and 0.

        >>> distance = torch.tensor([0.0, 0.5, 2.0])
        >>> same = torch.tensor([True, False, False])
        >>> ContrastiveLoss(margin=1.0)(distance, same, reduction="none").tolist()
        [0.0, 0.125, 0.0]

    See Also:
        TripletLoss: Requires the right order only, so one threshold need not fit all classes.

    References:
        Hadsell, Chopra & LeCun, CVPR 2006, eq. 4. The paper marks a similar pair Y = 0 (here True) and sums
        where this loss averages.
    """

    kind = "pair"

    def __init__(self, margin: float = 1.0, factor: float = 0.5) -> None:
        super().__init__()
        self.margin = check_positive("margin", margin)
        self.factor = check_positive("factor", factor)

    def forward(self, distance: Tensor, same: Same, *, reduction: Reduction = "mean") -> Tensor:
        """Compute the loss of pairs."""
        distance, same = _checked(distance, same)
        costs = torch.where(same, distance, (self.margin - distance).clamp(min=0)).square()
        return reduce(self.factor * costs, reduction)


class ChopraLoss(Loss):
    """Pull same-class pairs together and push the others away, with exponentially decreasing force.

    A pair at Manhattan distance ``d`` costs ``2 / bound * d**2`` if it is the same class, else
    ``2 * bound * exp(-2.77 * d / bound)``. The loss has no margin, and every different pair has a gradient.

    Args:
        bound: Largest possible distance, above 0 (Q in the paper): ``d`` for ``d`` sigmoid outputs. At that
            distance a different pair costs 6 % of its cost at 0.

    Example:
        >>> distance = torch.tensor([0.5, 0.0])
        >>> same = torch.tensor([True, False])
        >>> ChopraLoss(bound=1.0)(distance, same, reduction="none").tolist()
        [0.5, 2.0]

    References:
        Chopra, Hadsell & LeCun, CVPR 2005, eq. 8 and 9 (numbered from memory). The paper marks an impostor
        Y = 1 (here False).
    """

    kind = "pair"
    distance = "manhattan"

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = check_positive("bound", bound)

    def forward(self, distance: Tensor, same: Same, *, reduction: Reduction = "mean") -> Tensor:
        """Compute the loss of pairs."""
        distance, same = _checked(distance, same)
        impostor = 2 * self.bound * torch.exp(-2.77 / self.bound * distance)
        return reduce(torch.where(same, 2 / self.bound * distance.square(), impostor), reduction)


class PairCrossEntropy(Loss):
    """Train a learned head to classify pairs as same or different.

    The input is the head's logit instead of its score ``sigmoid(logit)``, because the logarithm of a rounded
    score is infinite for a confident error. HIGHER is closer here; the head's distance is ``1 - score``.

    The mean cost is in nats and at least 0; guessing costs 0.693.

    Example:
        >>> PairCrossEntropy()(torch.tensor([0.0, -200.0]), torch.tensor([True, False])).item()
        0.3465...

    References:
        Koch, Zemel & Salakhutdinov, ICML deep learning workshop 2015, without its L2 penalty, which is the
        optimizer's weight decay.
    """

    kind = "pair"
    input_kind = "logit"

    def forward(self, logit: Tensor, same: Same, *, reduction: Reduction = "mean") -> Tensor:
        """Compute the loss of pairs with logits of shape ``(pairs,)``; above 0 means same."""
        logit, same = _checked(logit, same)
        costs = F.binary_cross_entropy_with_logits(logit, same.to(logit.dtype), reduction="none")
        return reduce(costs, reduction)


def _checked(distance: Tensor, same: Same) -> tuple[Tensor, Tensor]:
    """Return both as tensors on one device, the distance at least in single precision."""
    same = torch.as_tensor(same, device=distance.device)
    if distance.ndim != 1 or distance.shape != same.shape or len(distance) == 0:
        shapes = f"{tuple(distance.shape)} and same {tuple(same.shape)}"
        raise DataError(f"distance has shape {shapes}. Both must have shape (pairs,), with at least one pair")
    if same.dtype != torch.bool:
        raise DataError(f"same has type {same.dtype}. It must be booleans, True for two images of one class")
    return to_float32(distance), same
