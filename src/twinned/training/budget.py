"""Time budget of a training run, and the number of steps that fit into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import TrainingError
from . import distributed
from .state import Schedule, State

# Steps before the measurement, steps to measure, and the fraction of the budget that measuring may take.
_SETTLE_STEPS, _MEASURE_STEPS, _MEASURE_SHARE = 3, 12, 0.1


@dataclass(frozen=True)
class Budget:
    """Time for one part of a run.

    Args:
        deadline: End of the run on the monotonic clock, in seconds; None for unlimited time.
        fraction: Fraction of the time until the deadline that belongs to this part, in (0, 1].
        reserved: Seconds before the deadline that are kept for the work after this part.

    Example:
        >>> Budget(time.monotonic() + 100).reserve(20).share(0.5).remaining() <= 40
        True
        >>> Budget().share(0.5).remaining() is None
        True
    """

    deadline: float | None = None
    fraction: float = 1.0
    reserved: float = 0.0

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


class StepBudget:
    """Measures the speed of a run and fits the number of steps to ``schedule.seconds``.

    A resumed run gets the whole budget again, but keeps its number of steps.

    Args:
        schedule: Steps or seconds of the run.
        state: State at the start.
        evaluate: Called once to measure the time of an evaluation; None for no evaluations.
    """

    def __init__(self, schedule: Schedule, state: State, evaluate: Callable[[], object] | None) -> None:
        self._schedule, self._evaluate = schedule, evaluate
        self._fixed = state.total is not None
        self._start = time.monotonic()
        self._since, self._first = 0.0, state.step + _SETTLE_STEPS

    def steps(self, state: State) -> int | None:
        """Return the total number of steps after a step; None until enough steps have been timed.

        The number is measured from the first steps, and once more when the learning rate starts to decay.
        The first process decides.
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
