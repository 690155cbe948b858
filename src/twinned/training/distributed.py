"""Several processes that train one network: what they tell each other, and when.

Each process draws the same batch, augments and embeds a share of it, and gathers the embeddings of all.
So each computes the loss of the whole batch, with pairs across processes, and the loss of the run is the
mean of these equal losses. Every exchange hands back the gradient of that mean: the network that comes out
is the one that a single process would have trained on the whole batch.

In a process of its own, which is the usual case, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..errors import SettingError

Value = TypeVar("Value")


def world_size() -> int:
    """How many there are, over all machines."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0. Number 0 alone evaluates, writes files and shows a bar."""
    return distributed.get_rank() if world_size() > 1 else 0


def rank_slice() -> slice:
    """The rows of a batch that this process embeds: every second one where there are two processes."""
    return slice(rank(), None, world_size())


def broadcast_from_rank0(value: Callable[[], Value]) -> Value:
    """What the first process finds, in all of them; only there is it looked for.

    Whatever depends on a clock, on a file or on chance is decided in this way: processes that disagree
    about the next step wait for each other for ever.
    """
    if world_size() == 1:
        return value()
    found = [value() if rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def any_rank(*questions: bool) -> list[bool]:
    """For each question, whether any process says yes."""
    if world_size() == 1:
        return list(questions)
    answers = torch.tensor(questions, dtype=torch.int32)
    distributed.all_reduce(answers, distributed.ReduceOp.MAX)
    return [bool(answer) for answer in answers.tolist()]


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give each process the first one's values: machines of different kinds round differently."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


@torch.no_grad()
def all_reduce_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Make every gradient the mean over the processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    means = torch.split(flat.div_(world_size()), [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def gather_embeddings(embed: Callable[[Tensor], Tensor], images: Tensor, total: int) -> Tensor:
    """The embeddings of a whole batch, each process embedding `rank_slice` of it.

    Args:
        embed: From images to embeddings.
        images: This process's rows of the batch.
        total: Images of the whole batch, n.

    Returns:
        Shape ``(n, d)``, in the order of the batch, with gradient to the images of every process.

    Raises:
        SettingError: If there are fewer images than processes.
    """
    count = world_size()
    if count == 1:
        return embed(images)
    if total < count:
        raise SettingError(
            f"a batch of {total} images cannot be shared by {count} processes; use fewer devices"
        )
    with _statistics_of_all():
        own = embed(images)
    most = -(-total // count)
    # Only the last processes may have an image less; in the batch's order their padding comes last.
    everyone = _gather(F.pad(own, (0, 0, 0, most - len(own))))  # (count, most, d)
    return everyone.transpose(0, 1).flatten(0, 1)[:total]


def _gather(values: Tensor) -> Tensor:
    gathered: Tensor = _Gather.apply(values)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Each process's tensor, one above the other; the gradient of each is summed over all who use it."""

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


class _StatisticsOfAll(TorchFunctionMode):
    """Wherever the network calls for a batch norm, the statistics are those of the whole batch.

    The network itself stays as it is, whoever wrote it: torch's SyncBatchNorm would take the place of its
    layers, and refuses to run on a processor.
    """

    def __torch_function__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        return (_batch_norm if function is F.batch_norm else function)(*given, **(named or {}))


def _statistics_of_all() -> AbstractContextManager[Any]:
    return _StatisticsOfAll() if world_size() > 1 else nullcontext()


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
    """As `torch.nn.functional.batch_norm`, of the values that all processes have.

    Mean and variance come from each process's own, so that no digits are lost (Chan et al. 1979).
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
