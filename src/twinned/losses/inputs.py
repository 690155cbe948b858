"""What every loss checks and does first: shapes, full precision, who is compared with whom.

The checks read shapes and types only, never values, so that none of them makes a GPU wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import DataError, SettingError

Reduction: TypeAlias = Literal["mean", "none"]
# What a miner returns: (anchor, positive, negative), or the pairs (anchor, positive, anchor, negative).
Indices: TypeAlias = tuple[Tensor, ...]
# More embeddings and their labels that a batch is compared with, besides itself.
Reference: TypeAlias = tuple[Tensor, Tensor]

# Stands for -infinity in a log-sum-exp: far below any logit, yet two of them still add up to a finite number.
NEVER = -1e30


def to_float32(values: Tensor) -> Tensor:
    """Half precision as float32, since exponents and small differences need it; the others as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def compare(measure: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor:
    """``measure`` of every row of ``a`` with every row of ``b``, in full precision even under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        matrix: Tensor = measure(to_float32(a), to_float32(b), all_pairs=True)
    return matrix


def check_positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise SettingError(f"{name} is {value}; it must be a number above 0")
    return value


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.ndim != 2 or labels.ndim != 1 or len(embeddings) != len(labels) or len(labels) == 0:
        raise DataError(
            f"embeddings have shape {tuple(embeddings.shape)} and labels {tuple(labels.shape)}; "
            "give (n, d) and (n,), with n at least 1"
        )
    if labels.is_floating_point():
        raise DataError(f"labels are {labels.dtype}; give whole numbers, one for each class")


def columns(embeddings: Tensor, labels: Tensor, reference: Reference | None) -> Reference:
    """The embeddings that each row of the batch is compared with, and their labels.

    First the batch itself, so that row ``i`` is column ``i``; then the reference, if there is one.
    """
    check_batch(embeddings, labels)
    if reference is None:
        return embeddings, labels
    check_batch(*reference)
    if reference[0].shape[1] != embeddings.shape[1]:
        raise DataError(
            f"an embedding has {embeddings.shape[1]} values in the batch, {reference[0].shape[1]} in the "
            "reference; both must come from one encoder"
        )
    return torch.cat([embeddings, reference[0]]), torch.cat([labels, reference[1]])


def pair_masks(labels: Tensor, rows: int, indices: Indices | None = None) -> tuple[Tensor, Tensor]:
    """Which comparisons count as genuine and which as impostor: two boolean masks ``(rows, columns)``.

    Args:
        labels: Of the columns, ``(columns,)``; the first ``rows`` are those of the rows.
        rows: How many rows there are.
        indices: A miner's choice; None takes every comparison but that of an image with itself.
    """
    if indices is None:
        same = labels[:rows, None] == labels[None, :]
        itself = torch.eye(rows, len(labels), dtype=torch.bool, device=labels.device)
        return same & ~itself, ~same
    if len(indices) not in (3, 4):
        raise DataError(
            f"a miner gave {len(indices)} tensors; expected (anchor, positive, negative) "
            "or (anchor, positive, anchor, negative)"
        )
    genuine = torch.zeros(rows, len(labels), dtype=torch.bool, device=labels.device)
    impostor = torch.zeros_like(genuine)
    genuine[indices[0], indices[1]] = True
    impostor[indices[-2] if len(indices) == 4 else indices[0], indices[-1]] = True
    return genuine, impostor


def mean_where(chosen: Tensor, costs: Tensor) -> Tensor:
    """Mean of the chosen costs; where none is chosen, a 0 that still has a (zero) gradient."""
    return torch.where(chosen, costs, 0.0).sum() / chosen.sum().clamp(min=1)


def reduce(costs: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "none"):
        raise SettingError(f"reduction {reduction!r} is not known; choose 'mean' or 'none'")
    return costs.mean() if reduction == "mean" else costs
