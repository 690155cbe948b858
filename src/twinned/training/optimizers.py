"""Optimizers: AdamW, SGD and Muon over parameter groups.

With the orthogonal updates of Muon, networks trained from scratch learn more from each step. The weights of
pretrained networks depend on the lengths of the updates, so they use AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..nn.siamese import SiameseNetwork
from .config import TrainConfig

# Matrices whose smaller side is longer use AdamW: their orthogonal update would take longer than the step.
MAX_ORTHOGONAL = 1024


def create_optimizer(
    network: SiameseNetwork,
    extra: nn.Module,
    config: TrainConfig,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
) -> torch.optim.Optimizer:
    """Create the optimizer of a network and of its loss's parameters, or that of the function ``make``."""
    if make is not None:
        return _own_optimizer(make, [*network.parameters(), *extra.parameters()])
    own = config.optimizer
    groups = parameter_groups(
        network, extra, weight_decay=own.weight_decay, proxy_lr_scale=own.proxy_lr_scale
    )
    if own.name == "sgd":
        return torch.optim.SGD(groups, own.learning_rate, own.momentum, nesterov=own.momentum > 0)
    if own.name == "muon":
        return Muon(groups, lr=own.learning_rate)
    return torch.optim.AdamW(groups, lr=own.learning_rate, fused=True)


def _own_optimizer(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """Create an optimizer of one's own; its learning rates become factors of that of the first group."""
    optimizer = make(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SettingError(
            f"optimizer must return a torch.optim.Optimizer of the parameters; got {type(optimizer).__name__}"
        )
    peak = float(optimizer.param_groups[0]["lr"])
    if not peak > 0:
        raise SettingError(f"The learning rate of the optimizer must be above 0; got {peak}")
    for group in optimizer.param_groups:
        group.setdefault("scale", float(group["lr"]) / peak)
    return optimizer


def parameter_groups(
    network: SiameseNetwork, extra: nn.Module, *, weight_decay: float, proxy_lr_scale: float
) -> list[dict[str, Any]]:
    """Return parameter groups: matrices and filters with weight decay, biases and batch norms without.

    Weight matrices of the encoder are marked ``orthogonal`` for `Muon`. Parameters of ``extra`` are proxies:
    each gets gradients from few images, so it needs a higher learning rate.
    """
    of_encoder = set(network.encoder.parameters())
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        matrix = parameter.ndim > 1
        orthogonal = matrix and parameter in of_encoder and min(parameter.flatten(1).shape) <= MAX_ORTHOGONAL
        groups.setdefault((1.0, weight_decay if matrix else 0.0, orthogonal), []).append(parameter)
    for parameter in extra.parameters():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((proxy_lr_scale, decay, False), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale, "orthogonal": orthogonal}
        for (scale, decay, orthogonal), parameters in groups.items()
    ]


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups marked ``orthogonal``, AdamW for the others.

    The filters of a convolution are the rows of one matrix. The update of a matrix of shape
    ``(rows, columns)`` is ``0.2 * sqrt(max(rows, columns))`` times the orthogonal matrix nearest to its
    momentum, which gives it about the size of AdamW's updates.

    Args:
        groups: Parameters, or groups of them; see `torch.optim.Optimizer`.
        lr: Learning rate.
        momentum: Nesterov momentum of matrices, in [0, 1).
        betas: Decay rates of AdamW's moments.

    References:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024 (the five steps and their
        coefficients); Liu et al., Muon is scalable for LLM training, 2025, eq. 4 (the size of an update);
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
            update = _orthogonal_update if group["orthogonal"] else _adam_update
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(update(weight.grad, self.state[weight], group), alpha=group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrix: same singular vectors, singular values around 1.

    Each of five iterations maps a singular value x, below 1 at first, to 3.4445 x - 4.775 x^3 + 2.0315 x^5.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    x = matrix / (matrix.norm() + 1e-7)
    # Every iteration is a polynomial of x x', so it is computed there, where matrices are small and square.
    square, product = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(5):
        step = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        step.diagonal().add_(3.4445)
        product, square = step @ product, step @ square @ step
    nearest: Tensor = product @ x
    return nearest


def _orthogonal_update(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum: Tensor = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(momentum, group["momentum"]).flatten(1)
    return orthogonal(ahead).view_as(gradient).mul_(0.2 * max(ahead.shape) ** 0.5)


def _adam_update(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    first, second = group["betas"]
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    taken = state["step"].add_(1).item()
    mean: Tensor = state["mean"].lerp_(gradient, 1 - first) / (1 - first**taken)
    square: Tensor = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second**taken)
    return mean / (square.sqrt() + 1e-8)
