"""The training loop. All that is random depends on seed and step, so a resumed run takes the same steps.

Several processes take each step together: each loads a share of the images, all compute the loss of the whole
batch, and the first decides what depends on a clock.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor, nn

from ..data.samplers import Batch
from ..errors import SettingError
from ..utils.progress import progress_bar
from ..utils.random import step_seed
from . import distributed
from .callbacks import Callback, CallbackGroup, Evaluation, saved_on_error
from .checkpoint import CheckpointSaver, Parts
from .process import kept_random_state, stop_requests
from .schedule import Schedule, StepBudget
from .state import Interrupted, Network, Objective, Scores, State, Step, StopReason, TrainResult


def train_network(
    network: Network,
    *,
    batches: Callable[[int], Batch],
    load: Callable[[Batch, int], Tensor],
    objective: Objective[Network],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    extra: nn.Module | None = None,
    evaluate: Callable[[Network], Scores] | None = None,
    before_step: Callable[[Network, int, int | None], object] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint_file: Path | None = None,
    run: str = "",
    progress: str | None = "Training",
) -> TrainResult[Network]:
    """Train a network.

    Args:
        network: Network to train, on its device.
        batches: Maps a step to the indices and labels of its images.
        load: Maps a batch and its step to images, floats in [0, 1] of shape ``(n, channels, height, width)``.
            With several processes each loads its share of them.
        objective: Maps the network, the images and the batch to the loss (a scalar) and the embeddings, both
            of the whole batch.
        optimizer: Optimizer of the parameters of the network and of ``extra``. The learning rate of a
            parameter group is multiplied by its option ``scale``.
        schedule: Length of the run, learning rate, and intervals.
        extra: Module with the other weights of the run, such as the proxies of a loss.
        evaluate: Maps the averaged network to its scores on held-out classes.
        before_step: Called with the network, the step and the total number of steps (None while unknown)
            before each step, to freeze parts of the network.
        callbacks: Called after steps and evaluations.
        checkpoint_file: File to save the run to, and to resume it from if it exists.
        run: Identification of the run, in JSON; a checkpoint of another run is refused.
        progress: Title of the progress bar; None shows no bar.

    The state of PyTorch's global random number generators is the same after the run as before.

    Returns:
        The final state with its history, and the network with the best evaluated weights.

    Raises:
        SettingError: If the optimizer has parameters of another network.
        ImageError: If an image cannot be read any more, once the checkpoint is saved.
        TrainingError: If the loss becomes infinite or NaN before any weights are worth keeping; or if a
            callback fails, once the checkpoint is saved.
        Interrupted: After SIGINT (Ctrl-C), SIGTERM or SIGHUP, once the checkpoint is saved.
    """
    extra = extra or nn.Module()
    _check_parameters(optimizer, network, extra)
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average, best_network = EmaModel(network, schedule.ema_decay), copy.deepcopy(network)
    parts: Parts = {"network": network, "average": average.network, "best": best_network, "extra": extra}
    checkpoint = CheckpointSaver(checkpoint_file, parts, optimizer, run, schedule.checkpoint_seconds)
    state = checkpoint.resume(State(total=schedule.steps, bfloat16=schedule.bfloat16))
    distributed.broadcast_tensors(t for part in parts.values() for t in (*part.parameters(), *part.buffers()))
    if before_step is not None:
        before_step(network, state.step, state.total)
    given = CallbackGroup(callbacks, checkpoint.save)
    evaluation = Evaluation(evaluate, average.network, best_network, state, schedule, given)
    budget = StepBudget(schedule, state, evaluate and (lambda: evaluate(average.network)))
    start = time.monotonic() - state.seconds
    interrupted = False

    bar = progress_bar(progress or "", state.total, show=progress is not None)
    with stop_requests() as signaled, kept_random_state(), bar as advance, saved_on_error(checkpoint.save):
        advance(state.step)
        network.train()
        while not (state.finished or interrupted):
            step = state.step
            torch.manual_seed(step_seed(schedule.seed + distributed.rank(), step))  # dropout
            rate = schedule.rate(step, state.total)
            for group in optimizer.param_groups:
                group["lr"] = group.get("scale", 1.0) * rate
            if before_step is not None:
                before_step(network, step, state.total)

            batch = batches(step)
            images = load(batch, step)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=state.bfloat16):
                loss, embeddings = objective(network, images, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.all_reduce_gradients(optimizer)
            value = _check_finite(state, loss, network)
            if state.stopped is not None:
                break
            optimizer.step()
            average.update(network, step)

            state.step += 1
            state.seconds = time.monotonic() - start
            state.total = budget.steps(state)
            size = len(batch.index)
            speed = state.step * size / max(state.seconds, 1e-9)
            advance(1, f"loss {value:.3f}  {speed:,.0f} images/s", state.total)
            report = Step(step, state.total, value, rate, state.seconds, size, batch, embeddings)
            stops = [callback.on_step(report) for callback in (evaluation, given, checkpoint)]
            interrupted = _check_stops(state, signaled(), budget.is_spent(), any(stops))

        if not interrupted:
            evaluation.keep_last()
        checkpoint.save()
        if distributed.any_rank(interrupted or signaled())[0]:
            raise Interrupted(f"stopped after step {state.step} of {state.total or 'an unknown number'}")
    given.on_train_end(state)
    return TrainResult(state, best_network.eval())


def _check_parameters(optimizer: torch.optim.Optimizer, network: nn.Module, extra: nn.Module) -> None:
    own = {id(parameter) for part in (network, extra) for parameter in part.parameters()}
    given = [p for group in optimizer.param_groups for p in group["params"]]
    if not given:
        raise SettingError(f"Optimizer {type(optimizer).__name__} has no parameters")
    if others := sum(id(parameter) not in own for parameter in given):
        raise SettingError(
            f"{others} of {len(given)} parameters of optimizer {type(optimizer).__name__} do not belong to"
            f" the {type(network).__name__} that is trained. Create the optimizer from its parameters"
        )


class EmaModel(Generic[Network]):
    """Exponential moving average of a network's weights and of its batch norm statistics.

    An update keeps the fraction ``decay`` of the average; less during the first steps.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network, self.decay = copy.deepcopy(network), decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average toward the network's weights, except for frozen ones; copy integers."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average, current = self.network.state_dict(), network.state_dict()
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:  # equal in both
                del average[name]
        floats = [key for key, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[k] for k in floats], [current[k] for k in floats], 1 - decay)
        for key in average.keys() - set(floats):
            average[key].copy_(current[key])


def _check_finite(state: State, loss: Tensor, network: nn.Module) -> float:
    """Return the loss as a number; stop the run if it, or the network's gradient, is infinite or NaN."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    value, length = torch.stack([loss.detach(), norm]).tolist()  # one synchronization with the GPU
    if not (math.isfinite(value) and math.isfinite(length)):
        what = "gradient" if math.isfinite(value) else f"loss ({value})"
        state.stop(StopReason.NOT_FINITE, f"the {what} was not finite at step {state.step}")
    return float(value)


def _check_stops(state: State, signaled: bool, late: bool, by_callback: bool) -> bool:
    """Stop the run in all processes if one of them has to; return True if a signal has arrived."""
    signaled, late, by_callback = distributed.any_rank(signaled, late, by_callback)
    if signaled or state.finished:
        return signaled
    if by_callback:
        state.stop(StopReason.CALLBACK, f"a callback stopped it after step {state.step}")
    elif late:
        of = "" if state.total is None else f" of {state.total}"
        state.stop(StopReason.TIME_IS_UP, f"time was up after step {state.step}{of}")
    return False
