"""Input checks and masks that all losses share: shapes, precision, genuine and impostor comparisons.

The checks read shapes and types only, never values, so none of them makes a GPU wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import DataError, SettingError

Reduction: TypeAlias = Literal["mean", "none"]
# Result of a miner: (anchor, positive, negative), or the pairs (anchor, positive, anchor, negative).
Indices: TypeAlias = tuple[Tensor, ...]
# Embeddings and their labels that a batch is compared with in addition to itself.
Reference: TypeAlias = tuple[Tensor, Tensor]

# Stands for -infinity in a log-sum-exp: far below any logit, and the sum of two of them is still finite.
NEVER = -1e30


def to_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32, which exponents and small differences need."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def compare(measure: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor:
    """Measure every row of ``a`` against every row of ``b``, in full precision even under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        matrix: Tensor = measure(to_float32(a), to_float32(b), pairwise=True)
    return matrix


def check_positive(name: str, value: float) -> float:
    """Return the value of an option, which must be positive and finite."""
    if not 0 < value < float("inf"):
        raise SettingError(f"{name} is {value}. It must be positive and finite")
    return value


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Check the shapes ``(n, d)`` and ``(n,)`` and that labels are integers."""
    if embeddings.ndim != 2 or labels.ndim != 1 or len(embeddings) != len(labels) or len(labels) == 0:
        shapes = f"{tuple(embeddings.shape)} and labels {tuple(labels.shape)}"
        raise DataError(f"embeddings have shape {shapes}. They must be (n, d) and (n,), with n at least 1")
    if labels.is_floating_point():
        raise DataError(f"labels have type {labels.dtype}. They must be integers, one for each class")


def columns(embeddings: Tensor, labels: Tensor, reference: Reference | None) -> Reference:
    """Return the embeddings that each row is compared with, the batch and then the reference, and labels."""
    check_batch(embeddings, labels)
    if reference is None:
        return embeddings, labels
    check_batch(*reference)
    if reference[0].shape[1] != embeddings.shape[1]:
        sizes = f"{embeddings.shape[1]} values in the batch and {reference[0].shape[1]} in the reference"
        raise DataError(f"embeddings have {sizes}. Both must come from one encoder")
    return torch.cat([embeddings, reference[0]]), torch.cat([labels, reference[1]])


def check_indices(indices: Any) -> Indices:
    """Return the result of a miner, which must be a tuple of three or four tensors."""
    tensors = isinstance(indices, (tuple, list)) and all(isinstance(one, Tensor) for one in indices)
    if not tensors or len(indices) not in (3, 4):
        got = f"{len(indices)} tensors" if tensors else repr(indices)
        expected = "(anchor, positive, negative) or (anchor, positive, anchor, negative)"
        raise DataError(f"the miner returned {got}. Expected tensors {expected}")
    return tuple(indices)


def pair_masks(labels: Tensor, rows: int, indices: Indices | None = None) -> tuple[Tensor, Tensor]:
    """Return two boolean masks ``(rows, columns)``: genuine and impostor comparisons.

    The first ``rows`` labels are those of the rows. Indices None select all except an image with itself.
    """
    if indices is None:
        same = labels[:rows, None] == labels[None, :]
        itself = torch.eye(rows, len(labels), dtype=torch.bool, device=labels.device)
        return same & ~itself, ~same
    check_indices(indices)
    genuine = torch.zeros(rows, len(labels), dtype=torch.bool, device=labels.device)
    impostor = torch.zeros_like(genuine)
    genuine[indices[0], indices[1]] = True
    impostor[indices[-2] if len(indices) == 4 else indices[0], indices[-1]] = True
    return genuine, impostor


def mean_where(selected: Tensor, costs: Tensor) -> Tensor:
    """Average the selected costs; without any, return 0 with a gradient of 0."""
    return torch.where(selected, costs, 0.0).sum() / selected.sum().clamp(min=1)


def reduce(costs: Tensor, reduction: Reduction) -> Tensor:
    """Average the costs, or return them unchanged."""
    if reduction not in ("mean", "none"):
        raise SettingError(f"reduction {reduction!r} is not known; choose 'mean' or 'none'")
    return costs.mean() if reduction == "mean" else costs
