"""Schedule of a training run: its time budget, number of steps and learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import SettingError, TrainingError
from . import distributed
from .config import TrainConfig
from .parts import Rate
from .process import bfloat16_is_faster
from .state import State

# Steps before the measurement, steps to measure, and the fraction of the budget that measuring may take.
_SETTLE_STEPS, _MEASURE_STEPS, _MEASURE_SHARE = 3, 12, 0.1


@dataclass(frozen=True)
class Budget:
    """Time for one part of a run.

    Example:
        >>> Budget(time.monotonic() + 100).reserve(20).share(0.5).remaining() <= 40
        True
        >>> Budget().share(0.5).remaining() is None
        True
    """

    deadline: float | None = None  # seconds of the monotonic clock; None for unlimited time
    fraction: float = 1.0  # of the time that belongs to this part, in (0, 1]
    reserved: float = 0.0  # seconds before the deadline for the work after this part

    def share(self, fraction: float) -> Budget:
        """Return the budget of a part that takes a fraction of this one."""
        return replace(self, fraction=self.fraction * fraction)

    def reserve(self, seconds: float) -> Budget:
        """Return a budget that keeps some seconds before the deadline for later work."""
        return replace(self, reserved=self.reserved + seconds)

    def remaining(self) -> float | None:
        """Return the seconds left for this part, negative after the deadline; None for unlimited time."""
        if self.deadline is None:
            return None
        return self.fraction * (self.deadline - time.monotonic() - self.reserved)


@dataclass(frozen=True)
class Schedule:
    """Length of a run, learning rate at each step, and intervals of evaluations and checkpoints."""

    steps: int | None = None  # None to fit it to the speed of the first ones, and to ``seconds``
    seconds: float | None = None  # for the whole loop
    max_steps: int | None = None  # limit of the steps that are fitted to ``seconds``
    learning_rate: float = 3e-3  # peak
    factor: Rate | None = None  # of the learning rate, in place of ``warmup`` and ``decay_start``
    warmup: int = 30  # steps over which the learning rate rises linearly
    decay_start: float = 0.3  # fraction of the steps after which it falls to 0 along half a cosine
    epoch_steps: float = 1.0  # steps per epoch, for the history
    ema_decay: float = 0.99  # of the averaged weights, which are evaluated; 0 keeps the last weights
    evaluations: int = 10
    bfloat16: bool = False
    seed: int = 0  # of dropout and augmentation
    checkpoint_seconds: float = 15.0  # between two checkpoints

    def rate(self, step: int, total: int | None) -> float:
        """Return the learning rate of a step; it does not decay while the total is None."""
        if self.factor is not None:
            return self.learning_rate * _checked_factor(self.factor(step, total), step)
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        done = 0.0 if total is None else step / max(1, total)
        fall = 0.0 if done <= self.decay_start else (done - self.decay_start) / (1 - self.decay_start)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * fall))


def _checked_factor(value: Any, step: int) -> float:
    with suppress(TypeError, ValueError):
        if 0 <= float(value) < math.inf:
            return float(value)
    raise SettingError(
        f"schedule returned {value!r} for step {step}. It must return a factor of the learning rate,"
        " a finite number of at least 0"
    )


def make_schedule(
    config: TrainConfig,
    steps: int | None,
    seconds: float | None,
    epoch: float,
    learning_rate: float,
    *,
    factor: Rate | None,
    device: torch.device,
) -> Schedule:
    """Create the schedule of a fit; without ``steps``, its length is that of the configuration.

    ``epoch`` is the number of batches with as many images as there are, ``factor`` a schedule of one's own.
    """
    length, precision, epoch_steps = config.length, config.run.precision, epoch
    if steps is None and length.epochs is not None:
        rounded = round(length.epochs * epoch)
        # The last step ends the last epoch, unless a single step shows more images than that.
        steps, epoch_steps = max(1, rounded), rounded / length.epochs if rounded else epoch
    return Schedule(
        steps=length.steps if steps is None else steps,
        seconds=None if seconds is None else max(0.5, seconds),
        max_steps=None if length.max_epochs is None else max(1, round(length.max_epochs * epoch)),
        learning_rate=learning_rate,
        factor=factor,
        **config.schedule.model_dump(),
        seed=config.seed,
        checkpoint_seconds=config.run.checkpoint_seconds,
        epoch_steps=epoch_steps,
        bfloat16=bfloat16_is_faster(device) if precision == "auto" else precision == "bfloat16",
    )


class StepBudget:
    """Measures the speed of a run and fits the number of steps to ``schedule.seconds``.

    A resumed run gets the whole budget again, but keeps its number of steps. ``evaluate`` is called once, to
    measure the time of an evaluation.
    """

    def __init__(self, schedule: Schedule, state: State, evaluate: Callable[[], object] | None) -> None:
        self._schedule, self._evaluate = schedule, evaluate
        self._fixed = state.total is not None
        self._start = time.monotonic()
        self._since, self._first = 0.0, state.step + _SETTLE_STEPS

    def steps(self, state: State) -> int | None:
        """Return the total number of steps after a step; None until enough steps have been timed.

        The first process measures it, and once more when the learning rate starts to decay.
        """
        decay_start = min(0.5, self._schedule.decay_start)
        if state.total is not None and (self._fixed or state.step != 1 + int(decay_start * state.total)):
            return state.total
        return distributed.broadcast_from_rank0(lambda: self._measure(state))

    def _measure(self, state: State) -> int | None:
        seconds = self._schedule.seconds
        if seconds is None:
            raise TrainingError("The schedule has neither steps nor seconds. Set one of them.")
        now = time.monotonic()
        if state.step == self._first:
            self._since = now
        timed, evaluation_seconds = state.step - self._first, 0.0
        if state.total is None:
            elapsed = now - self._start
            late = elapsed > 3 * _MEASURE_SHARE * seconds and timed > 0
            if not late and (timed < _MEASURE_STEPS or elapsed < _MEASURE_SHARE * seconds):
                return None
            if self._evaluate is not None:
                self._evaluate()
                evaluation_seconds = (time.monotonic() - now) * self._schedule.evaluations
        elif timed < _MEASURE_STEPS:
            return state.total
        step_seconds = (now - self._since) / timed  # the second measurement includes evaluations
        self._since, self._first = time.monotonic(), state.step
        left = seconds - (self._since - self._start) - evaluation_seconds
        fitting = state.step + max(1, int(0.95 * left / step_seconds))
        limit = self._schedule.max_steps
        return fitting if limit is None else max(state.step, min(fitting, limit))

    def is_spent(self) -> bool:
        """Return True once the time budget is used up, because steps became slower than measured."""
        seconds = self._schedule.seconds
        return seconds is not None and time.monotonic() - self._start > seconds
