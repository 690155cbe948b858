"""Muon: each weight matrix moves by its momentum made orthogonal, so that all directions learn alike.

The few strong directions of a gradient drown the many weak ones; here their lengths are made equal. A network
that starts from nothing learns more from each step; what a pretrained one knows lies in those lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOST = (
    1024  # the smaller side of a matrix that is made orthogonal; a larger one would take longer than its step
)


class Muon(torch.optim.Optimizer):
    """Orthogonal moves for the groups that are marked ``orthogonal``, AdamW's for the others.

    A convolution's weights count as a matrix of one row a filter. A move of a matrix of ``(rows, columns)``
    is ``0.2 * sqrt(max(rows, columns))`` times the orthogonal matrix nearest to its momentum, so that its
    values are about as large as those of AdamW's moves.

    Args:
        groups: Parameters, or groups of them; see `torch.optim.Optimizer`.
        lr: Learning rate.
        momentum: Share of the old momentum that is kept, for matrices; the move looks one gradient ahead
            (Nesterov).
        betas: AdamW's two, for all the rest.

    References:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024 (the five steps and their
        coefficients); Liu et al., Muon is scalable for LLM training, 2025, eq. 4 (the size of a move);
        Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019 (AdamW).
    """

    def __init__(
        self,
        groups: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "momentum": momentum, "betas": betas, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            move = _orthogonal_move if group["orthogonal"] else _adam_move
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(move(weight.grad, self.state[weight], group), alpha=group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix that is nearest: the same directions, of lengths around 1.

    Five times each length x, below 1 at first, becomes 3.4445 x - 4.775 x^3 + 2.0315 x^5.

    Args:
        matrix: Shape ``(rows, columns)``.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    x = matrix / (matrix.norm() + 1e-7)
    # All steps are polynomials of x x', so they are taken there, where matrices are small and square.
    square, whole = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(5):
        step = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        step.diagonal().add_(3.4445)
        whole, square = step @ whole, step @ square @ step
    found: Tensor = whole @ x
    return found


def _orthogonal_move(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum: Tensor = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(momentum, group["momentum"]).flatten(1)
    return orthogonal(ahead).view_as(gradient).mul_(0.2 * max(ahead.shape) ** 0.5)


def _adam_move(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    first, second = group["betas"]
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    taken = state["step"].add_(1).item()
    mean: Tensor = state["mean"].lerp_(gradient, 1 - first) / (1 - first**taken)
    square: Tensor = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second**taken)
    return mean / (square.sqrt() + 1e-8)
