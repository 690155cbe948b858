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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from . import checkpoint, together
from .checkpoint import State
from .data import Batch
from .errors import TrainingError
from .progress import progress_bar

# Steps before the speed is measured, and the share of the budget that measuring may take.
_SETTLE_STEPS, _MEASURE_STEPS, _MEASURE_SHARE = 3, 12, 0.1
# Evaluations are at least so many steps apart, so that a short run is not spent on them.
_LOOK_EVERY = 10
# bfloat16 must be this much faster than float32 to be chosen: it costs digits.
_BFLOAT16_GAIN = 1.2
_LONG_PASS = 1.0  # seconds


@dataclass(frozen=True)
class Plan:
    """How long to train, how fast to learn, how often to look.

    Args:
        steps: Steps to take; None to fit them to ``seconds``.
        seconds: Time for the whole loop, where ``steps`` is None. The number of steps follows from the speed
            of the first ones, is corrected once the rate is to fall, and is kept in the checkpoint.
        most: Steps that are enough, however much time there is; None for as many as fit.
        learning_rate: The highest.
        warmup: Steps over which it rises.
        decay_from: Share of the steps after which it falls to 0 along half a cosine; 1 for never.
        epoch_decay: The rate is multiplied by it after each epoch of ``per_epoch`` steps.
        per_epoch: Steps of an epoch, for ``epoch_decay``.
        epoch_steps: Steps that show as many images as there are; the history counts epochs by it.
        momentum: Of SGD, which rises linearly over the run: the first and the last; None leaves it as it is.
        average: Decay of the running average of the weights, which is what is evaluated and kept; 0 for none.
        evaluations: How many times to evaluate on the way.
        patience: Stop after so many evaluations without a better one; 0 never stops early.
        clip: Longest gradient; 0 for no limit.
        bfloat16: Run the network in bfloat16; None measures whether it pays.
        seed: Of dropout and of the augmentation.
        checkpoint_seconds: Time between two checkpoints.
    """

    steps: int | None = None
    seconds: float | None = None
    most: int | None = None
    learning_rate: float = 3e-3
    warmup: int = 30
    decay_from: float = 0.3
    epoch_decay: float = 1.0
    per_epoch: int = 1
    epoch_steps: float = 1.0
    momentum: tuple[float, float] | None = None
    average: float = 0.99
    evaluations: int = 10
    patience: int = 0
    clip: float = 0.0
    bfloat16: bool | None = None
    seed: int = 0
    checkpoint_seconds: float = 15.0

    def rate(self, step: int, total: int | None) -> float:
        """The learning rate of a step. While the total is not known, the fall has not begun."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        done = 0.0 if total is None else step / max(1, total)
        fall = 0.0 if done <= self.decay_from else (done - self.decay_from) / (1 - self.decay_from)
        slower = self.epoch_decay ** (step // self.per_epoch)
        return self.learning_rate * rise * slower * 0.5 * (1 + math.cos(math.pi * fall))

    def settings(self, step: int, total: int | None, *, scale: float = 1.0) -> dict[str, float]:
        """What a group of an optimiser's parameters, with its own scale of the rate, is set to at a step."""
        found = {"lr": scale * self.rate(step, total)}
        if self.momentum is not None:
            first, last = self.momentum
            found["momentum"] = first + (last - first) * (0.0 if total is None else step / max(1, total))
        return found


class Step(NamedTuple):
    """What a callback is told after a step."""

    step: int
    total: int | None
    loss: float
    learning_rate: float
    seconds: float
    images: int
    batch: Batch
    embeddings: Tensor | None


class Scores(NamedTuple):
    """What an evaluator returns, each in [0, 1].

    ``nan`` where there is nothing to measure on; an error rate of infinity where embeddings are not finite.
    """

    train_accuracy: float
    held_out_accuracy: float
    held_out_eer: float


Network = TypeVar("Network", bound=nn.Module)

# From the network, the images and the batch to the loss (a scalar) and the embeddings.
Objective: TypeAlias = Callable[[Network, Tensor, Batch], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Network]):
    """A finished run: where it stands, and the weights to keep."""

    state: State
    network: Network


class Interrupted(TrainingError):  # noqa: N818 - no error of anybody's
    """Ctrl-C, SIGTERM or SIGHUP ended the run; the checkpoint holds all of it."""


def train_network(
    network: Network,
    *,
    batches: Callable[[int], Batch],
    load: Callable[[Batch, int], Tensor],
    objective: Objective[Network],
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    extra: nn.Module | None = None,
    evaluate: Callable[[Network], Scores] | None = None,
    before_step: Callable[[Network, int, int | None], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    checkpoint_file: Path | None = None,
    run: str = "",
    progress: bool = True,
    title: str = "Training",
) -> Outcome[Network]:
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
    if checkpoint_file is not None and together.from_first(checkpoint_file.exists):
        state = checkpoint.load(checkpoint_file, parts=parts, optimizer=optimizer, run=run)
    together.copy_first(value for part in parts.values() for value in (*part.parameters(), *part.buffers()))
    if before_step is not None:
        before_step(network, state.step, state.total)
    if state.bfloat16 is None:
        pays = _bfloat16_pays(parts, objective, load(batches(0), 0), batches(0), plan.seconds)
        state.bfloat16 = together.from_first(lambda: pays)
    saved = sat_down = time.monotonic()
    began = sat_down - state.seconds
    speed = _Speed(plan, state, sat_down)

    def save() -> None:
        if checkpoint_file is not None and together.number() == 0:
            checkpoint.save(checkpoint_file, state=state, parts=parts, optimizer=optimizer, run=run)

    with (
        _polite_stop() as asked_to_stop,
        progress_bar(title, state.total, show=progress) as advance,
    ):
        advance(state.step)
        network.train()
        while state.stopped is None and (state.total is None or state.step < state.total):
            step = state.step
            torch.manual_seed(_mix(plan.seed + together.number(), step))  # dropout
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
            together.average_gradients(optimizer)
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
                state.total = together.from_first(lambda: speed.total(state, evaluate, average))
            size = len(batch.index)
            if on_step is not None:
                on_step(Step(step, state.total, value, rate, state.seconds, size, batch, embeddings))
            advance(1, f"loss {value:.3f}  {state.step * size / state.seconds:,.0f} images/s", state.total)

            if evaluate is not None and _is_due(state, plan):
                scores = together.from_first(lambda: evaluate(average))
                network.train()
                state.history.append(_row(state, value, rate, scores, plan))
                _keep_best(state, scores, average, best)
                if plan.patience and state.stale >= plan.patience:
                    state.stopped = f"no better for {state.stale} evaluations"
            if time.monotonic() - saved > plan.checkpoint_seconds:
                save()
                saved = time.monotonic()
            asked, late = together.anywhere(asked_to_stop(), speed.overrun())
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
                and math.isinf(together.from_first(lambda: evaluate(average)).held_out_eer)
            ):
                raise TrainingError(
                    f"{state.stopped or 'the weights became infinite'}, before anything was worth keeping;"
                    " try a smaller --learning-rate"
                )
            best.load_state_dict(average.state_dict())
        save()
        if together.anywhere(asked_to_stop())[0]:
            raise Interrupted(f"stopped after step {state.step}, the last one")
    best.eval()
    return Outcome(state, best)


class _Speed:
    """From the speed of the steps so far to the number of them that fits the budget."""

    def __init__(self, plan: Plan, state: State, began: float) -> None:
        self.plan, self.began = plan, began  # in this sitting: a resumed run has the whole budget again,
        self.kept = state.total is not None  # but keeps the number of steps that it had
        self.since, self.first = 0.0, state.step + _SETTLE_STEPS

    def is_due(self, state: State) -> bool:
        """Whether to measure: from the start, and again where the rate is to fall."""
        if state.total is None:
            return True
        return not self.kept and state.step == 1 + int(min(0.5, self.plan.decay_from) * state.total)

    def total(
        self, state: State, evaluate: Callable[[Network], Scores] | None, network: Network
    ) -> int | None:
        """The number of steps, once enough have been timed; None before that."""
        seconds = self.plan.seconds
        if seconds is None:
            raise TrainingError("a plan needs steps or seconds")
        now = time.monotonic()
        if state.step == self.first:
            self.since = now
        timed, looking = state.step - self.first, 0.0
        if state.total is None:
            late = now - self.began > 3 * _MEASURE_SHARE * seconds and timed > 0
            if not late and (timed < _MEASURE_STEPS or now - self.began < _MEASURE_SHARE * seconds):
                return None
            if evaluate is not None:
                evaluate(network)
                looking = (time.monotonic() - now) * self.plan.evaluations
        elif timed < _MEASURE_STEPS:
            return state.total
        a_step = (now - self.since) / timed  # the second time with its share of looking
        self.since, self.first = time.monotonic(), state.step
        left = seconds - (self.since - self.began) - looking
        fitting = state.step + max(1, int(0.95 * left / a_step))
        return fitting if self.plan.most is None else max(state.step, min(fitting, self.plan.most))

    def overrun(self) -> bool:
        """Whether the machine turned out so much slower that the budget is gone."""
        return self.plan.seconds is not None and time.monotonic() - self.began > self.plan.seconds


def _bfloat16_pays(
    parts: checkpoint.Parts, objective: Objective[Any], images: Tensor, batch: Batch, seconds: float | None
) -> bool:
    """Time passes either way, turn about. Processors with bfloat16 units gain twofold, others lose."""
    # Batch norm counts what it sees, and a memory of embeddings fills up.
    kept = {name: copy.deepcopy(parts[name].state_dict()) for name in ("network", "extra")}
    times = []
    for enabled in (False, True) * 4:
        began = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            loss, _ = objective(parts["network"], images, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        parts["network"].zero_grad(set_to_none=True)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        if enabled and times[-1] > max(_LONG_PASS, 2 * times[-2]):
            break  # by far, so no more time goes into it
        if seconds is not None and sum(times) > _MEASURE_SHARE * seconds:
            break  # there is none for it
    for name, values in kept.items():
        parts[name].load_state_dict(values)
    # The quickest of each, after the first, which also loads code: a busy machine only ever adds time.
    return len(times) == 8 and min(times[2::2]) > _BFLOAT16_GAIN * min(times[3::2])


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Move the averaged weights, and batch norm's running figures, towards the network's."""
    mine, theirs = average.state_dict(), network.state_dict()
    floats = [key for key, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[k] for k in floats], [theirs[k] for k in floats], 1 - decay)
    for key in mine.keys() - set(floats):
        mine[key].copy_(theirs[key])


def _is_due(state: State, plan: Plan) -> bool:
    if state.total is None:
        return False
    every = max(_LOOK_EVERY, state.total // plan.evaluations)
    return state.step % every == 0 or state.step == state.total


def _keep_best(state: State, scores: Scores, average: nn.Module, best: nn.Module) -> None:
    """Keep the averaged weights if they are the best so far; of two that are as good, the later."""
    eer = scores.held_out_eer
    if math.isinf(eer):  # the weights are no longer finite
        state.stale += 1
    elif math.isnan(eer) or state.best_eer is None or eer <= state.best_eer * 1.02:
        best.load_state_dict(average.state_dict())
        state.best_step = state.step
        state.stale = 0
        if not math.isnan(eer):
            state.best_eer = min(eer, state.best_eer if state.best_eer is not None else 1.0)
    else:
        state.stale += 1


def _row(state: State, loss: float, rate: float, scores: Scores, plan: Plan) -> dict[str, float]:
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
