"""The training loop.

It is handed a network, batches, an objective, an optimiser and an evaluator, and knows none of them by
name. `train_network` reads from top to bottom; the few things it decides by itself stand below it.

Everything that is random depends on the seed and the step alone. So a run that is killed and resumed takes
the very steps that an uninterrupted one would have taken. Several processes take each step together: each has
a share of the images, all have the loss of the whole batch, and the first decides what a clock decides.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from ..data.samplers import Batch
from ..errors import TrainingError
from ..utils.progress import progress_bar
from . import checkpoint, distributed
from .budget import _bfloat16_pays, _Speed
from .checkpoint import State
from .state import Interrupted, Network, Objective, Schedule, Scores, Step, TrainResult

# Evaluations are at least so many steps apart, so that a short run is not spent on them.
_LOOK_EVERY = 10


def train_network(
    network: Network,
    *,
    batches: Callable[[int], Batch],
    load: Callable[[Batch, int], Tensor],
    objective: Objective[Network],
    optimizer: torch.optim.Optimizer,
    plan: Schedule,
    extra: nn.Module | None = None,
    evaluate: Callable[[Network], Scores] | None = None,
    before_step: Callable[[Network, int, int | None], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    checkpoint_file: Path | None = None,
    run: str = "",
    progress: bool = True,
    title: str = "Training",
) -> TrainResult[Network]:
    """Train a network.

    Args:
        network: What is trained, on its device.
        batches: The images and labels of a step, a function of the step alone.
        load: A batch's images as floats in [0, 1], ``(n, channels, height, width)``; by the step alone. Of
            several processes each loads its share of them.
        objective: From the network, the images and the batch to the loss (a scalar) and the embeddings, both
            of the whole batch.
        optimizer: Over the network's parameters, and the loss's where it has any. A group's ``scale``
            multiplies the learning rate for it.
        plan: How long, how fast, how often.
        extra: A module whose weights belong to the run but not to the network: a loss with class weights.
        evaluate: From the network to its scores on held-out classes.
        before_step: Called with the network, the step and their number (None while it is not known) before
            each step: what learns in it.
        on_step: Called after every step.
        checkpoint_file: Where the run is saved on the way, and resumed from if the file is there.
        run: What identifies the run, in JSON; a checkpoint of another run is refused.
        progress: Show a bar.
        title: What the bar says.

    Returns:
        The state with its history, and the weights to keep: the best evaluated ones.

    Raises:
        TrainingError: If the loss is no longer finite and there is nothing good to keep.
        Interrupted: After Ctrl-C, SIGTERM, or SIGHUP where it is not ignored, once everything is saved.
    """
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    best = copy.deepcopy(network)
    parts: checkpoint.Parts = {
        "network": network,
        "average": average,
        "best": best,
        "extra": extra or nn.Module(),
    }
    state = State(total=plan.steps, bfloat16=plan.bfloat16)
    if checkpoint_file is not None and distributed.broadcast_from_rank0(checkpoint_file.exists):
        state = checkpoint.load(checkpoint_file, parts=parts, optimizer=optimizer, run=run)
    distributed.broadcast_tensors(
        value for part in parts.values() for value in (*part.parameters(), *part.buffers())
    )
    if before_step is not None:
        before_step(network, state.step, state.total)
    if state.bfloat16 is None:
        pays = _bfloat16_pays(parts, objective, load(batches(0), 0), batches(0), plan.seconds)
        state.bfloat16 = distributed.broadcast_from_rank0(lambda: pays)
    saved = sat_down = time.monotonic()
    began = sat_down - state.seconds
    speed = _Speed(plan, state, sat_down)

    def save() -> None:
        if checkpoint_file is not None and distributed.rank() == 0:
            checkpoint.save(checkpoint_file, state=state, parts=parts, optimizer=optimizer, run=run)

    with (
        _polite_stop() as asked_to_stop,
        progress_bar(title, state.total, show=progress) as advance,
    ):
        advance(state.step)
        network.train()
        while state.stopped is None and (state.total is None or state.step < state.total):
            step = state.step
            torch.manual_seed(_mix(plan.seed + distributed.rank(), step))  # dropout
            rate = plan.rate(step, state.total)
            for group in optimizer.param_groups:
                group.update(plan.settings(step, state.total, scale=group.get("scale", 1.0)))
            if before_step is not None:
                before_step(network, step, state.total)

            batch = batches(step)
            images = load(batch, step)
            with torch.autocast(device.type, torch.bfloat16, enabled=state.bfloat16):
                loss, embeddings = objective(network, images, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.all_reduce_gradients(optimizer)
            length = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
            value, slope = torch.stack([loss.detach(), length]).tolist()  # both at once: a GPU waits here
            if not (math.isfinite(value) and math.isfinite(slope)):
                what = "gradient" if math.isfinite(value) else f"loss ({value})"
                state.stopped = f"the {what} was not finite at step {step}"
                break
            if plan.clip:
                nn.utils.clip_grads_with_norm_(network.parameters(), plan.clip, length)
            optimizer.step()
            _follow(average, network, decay=min(plan.average, (1 + step) / (10 + step)))

            state.step += 1
            state.seconds = time.monotonic() - began
            if speed.is_due(state):
                state.total = distributed.broadcast_from_rank0(lambda: speed.total(state, evaluate, average))
            size = len(batch.index)
            if on_step is not None:
                on_step(Step(step, state.total, value, rate, state.seconds, size, batch, embeddings))
            advance(1, f"loss {value:.3f}  {state.step * size / state.seconds:,.0f} images/s", state.total)

            if evaluate is not None and _is_due(state, plan):
                scores = distributed.broadcast_from_rank0(lambda: evaluate(average))
                network.train()
                state.history.append(_row(state, value, rate, scores, plan))
                _keep_best(state, scores, average, best)
                if plan.patience and state.evals_without_improvement >= plan.patience:
                    state.stopped = f"no better for {state.evals_without_improvement} evaluations"
            if time.monotonic() - saved > plan.checkpoint_seconds:
                save()
                saved = time.monotonic()
            asked, late = distributed.any_rank(asked_to_stop(), speed.overrun())
            if asked:
                save()
                raise Interrupted(f"stopped after step {state.step} of {state.total or 'an unknown number'}")
            if late and state.step != state.total:
                of = "" if state.total is None else f" of {state.total}"
                state.stopped = f"time was up after step {state.step}{of}"
        if state.best_step == 0:  # never evaluated: the average is all there is
            finite = all(torch.isfinite(p).all() for p in average.parameters())
            if not finite or (
                evaluate is not None
                and math.isinf(distributed.broadcast_from_rank0(lambda: evaluate(average)).held_out_eer)
            ):
                raise TrainingError(
                    f"{state.stopped or 'the weights became infinite'}, before anything was worth keeping;"
                    " try a smaller --learning-rate"
                )
            best.load_state_dict(average.state_dict())
        save()
        if distributed.any_rank(asked_to_stop())[0]:
            raise Interrupted(f"stopped after step {state.step}, the last one")
    best.eval()
    return TrainResult(state, best)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Move the averaged weights, and batch norm's running figures, towards the network's."""
    mine, theirs = average.state_dict(), network.state_dict()
    floats = [key for key, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[k] for k in floats], [theirs[k] for k in floats], 1 - decay)
    for key in mine.keys() - set(floats):
        mine[key].copy_(theirs[key])


def _is_due(state: State, plan: Schedule) -> bool:
    if state.total is None:
        return False
    every = max(_LOOK_EVERY, state.total // plan.evaluations)
    return state.step % every == 0 or state.step == state.total


def _keep_best(state: State, scores: Scores, average: nn.Module, best: nn.Module) -> None:
    """Keep the averaged weights if they are the best so far; of two that are as good, the later."""
    eer = scores.held_out_eer
    if math.isinf(eer):  # the weights are no longer finite
        state.evals_without_improvement += 1
    elif math.isnan(eer) or state.best_eer is None or eer <= state.best_eer * 1.02:
        best.load_state_dict(average.state_dict())
        state.best_step = state.step
        state.evals_without_improvement = 0
        if not math.isnan(eer):
            state.best_eer = min(eer, state.best_eer if state.best_eer is not None else 1.0)
    else:
        state.evals_without_improvement += 1


def _row(state: State, loss: float, rate: float, scores: Scores, plan: Schedule) -> dict[str, float]:
    return {
        "epoch": round(state.step / plan.epoch_steps, 2),
        "step": state.step,
        "seconds": round(state.seconds, 2),
        "loss": loss,
        "train_accuracy": scores.train_accuracy,
        "held_out_accuracy": scores.held_out_accuracy,
        "held_out_eer": scores.held_out_eer,
        "learning_rate": rate,
    }


def _mix(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % (1 << 62)


def stop_signals() -> list[signal.Signals]:
    """Signals that ask for an end: SIGINT, SIGTERM, and SIGHUP unless it is ignored (by nohup, for one)."""
    found = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


@contextmanager
def handling(
    signals: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the block runs; outside the main thread, which alone can, do nothing."""
    in_main = threading.current_thread() is threading.main_thread()
    old = {number: signal.signal(number, handler) for number in signals} if in_main else {}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals that would end the process at once into KeyboardInterrupt while the block runs.

    So the program can put away what is unfinished and say what is saved. A handler that the program has set
    itself stays.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):  # a terminal that closes sends it more than once
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with handling([s for s in stop_signals() if signal.getsignal(s) == signal.SIG_DFL], interrupt):
        yield


@contextmanager
def _polite_stop() -> Iterator[Callable[[], bool]]:
    """Turn the first signal that asks for an end into a question that the loop asks between two steps.

    The second Ctrl-C or SIGTERM does not wait; SIGHUP comes more than once from a terminal that closes.
    """
    asked: set[int] = set()

    def ask(number: int, frame: FrameType | None) -> None:
        if number in asked and number != getattr(signal, "SIGHUP", None):
            raise KeyboardInterrupt
        asked.add(number)

    with handling(stop_signals(), ask):
        yield lambda: bool(asked)
