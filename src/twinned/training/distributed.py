"""Communication among the processes that train one network; in a single process, every function does nothing.

Each process draws the same batch, embeds a share of it, and gathers the embeddings of all, so it computes
the loss of the whole batch. Every exchange returns the gradient of the mean of these equal losses, so the
network is the one that a single process would train on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..errors import SettingError

Value = TypeVar("Value")


def world_size() -> int:
    """Return the number of processes, over all machines."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the index of this process; only process 0 evaluates, writes files and shows progress."""
    return distributed.get_rank() if world_size() > 1 else 0


def rank_slice() -> slice:
    """Return the rows of a batch that this process embeds: every second one with two processes."""
    return slice(rank(), None, world_size())


def broadcast_from_rank0(value: Callable[[], Value]) -> Value:
    """Call a function on rank 0 and broadcast the result: every decision that depends on a clock or a file.

    Processes that disagree about the next step wait for each other forever.
    """
    if world_size() == 1:
        return value()
    found = [value() if rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def any_rank(*flags: bool) -> list[bool]:
    """Return for each flag True if it is set in any process."""
    if world_size() == 1:
        return list(flags)
    reduced = torch.tensor(flags, dtype=torch.int32)
    distributed.all_reduce(reduced, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in reduced.tolist()]


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Copy the values of rank 0 to all processes, because different machines round differently."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


@torch.no_grad()
def all_reduce_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Replace every gradient by its mean over the processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    means = torch.split(flat.div_(world_size()), [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def gather_embeddings(embed: Callable[[Tensor], Tensor], images: Tensor, total: int) -> Tensor:
    """Return the embeddings of a whole batch; each process embeds its `rank_slice`, ``images``.

    The result has shape ``(total, d)``, in the order of the batch, and a gradient to all images.
    """
    count = world_size()
    if count == 1:
        return embed(images)
    if total < count:
        raise SettingError(f"A batch of {total} images is too small for {count} devices. Use fewer of them.")
    with _SyncBatchNorm():
        own = embed(images)
    most = -(-total // count)
    # Only the last processes may have one image less; in the order of the batch their padding comes last.
    gathered = _gather(F.pad(own, (0, 0, 0, most - len(own))))  # (count, most, d)
    return gathered.transpose(0, 1).flatten(0, 1)[:total]


def _gather(values: Tensor) -> Tensor:
    gathered: Tensor = _Gather.apply(values)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Stack the tensors of all processes; sum the gradient of each over the processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        gathered = values.new_empty(world_size(), *values.shape)
        distributed.all_gather(list(gathered.unbind()), values.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed[rank()]


class _SyncBatchNorm(TorchFunctionMode):
    """Compute batch norm statistics over the whole batch, without changing the network's layers.

    torch's SyncBatchNorm would replace the layers, and does not run on a CPU.
    """

    def __torch_function__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        return (_batch_norm if function is F.batch_norm else function)(*given, **(named or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute `torch.nn.functional.batch_norm` over the values of all processes.

    Mean and variance are combined from those of each process, which loses no digits (Chan et al. 1979).
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    own_var, own_mean = torch.var_mean(values, [0, *range(2, x.ndim)], correction=0)
    count = torch.full_like(own_mean, x.numel() / x.shape[1])
    counts, means, variances = _gather(torch.stack([count, own_mean, own_var])).unbind(1)  # (processes, C)
    part = counts / counts.sum(0)
    mean = (part * means).sum(0)
    var = (part * (variances + (means - mean).square())).sum(0)
    if running_mean is not None and running_var is not None:
        total = counts.sum(0)
        running_mean.lerp_(mean.detach(), momentum)
        running_var.lerp_(var.detach() * (total / (total - 1)), momentum)
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    shape = [1, -1] + [1] * (x.ndim - 2)
    return torch.addcmul(shift.view(shape), values, scale.view(shape)).to(x.dtype)
