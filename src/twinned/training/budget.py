"""Number of steps that fit into the time budget, and choice of the precision."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data.samplers import Batch
from ..errors import TrainingError
from . import distributed
from .state import Objective, Schedule, State

# Steps before the measurement, steps to measure, and the fraction of the budget that measuring may take.
_SETTLE_STEPS, _MEASURE_STEPS, _MEASURE_SHARE = 3, 12, 0.1
# bfloat16 loses digits, so it must be faster than float32 by this factor.
_BFLOAT16_GAIN = 1.2
# Seconds of a bfloat16 pass beyond which a slower one is not repeated.
_LONG_PASS = 1.0


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


def bfloat16_is_faster(
    network: nn.Module,
    extra: nn.Module,
    objective: Objective[Any],
    batches: Callable[[int], Batch],
    load: Callable[[Batch, int], Tensor],
    seconds: float | None,
) -> bool:
    """Time forward and backward passes in float32 and bfloat16, alternating.

    CPUs with bfloat16 units run up to twice as fast, others slower. Weights, buffers and memories are
    restored. The first process decides.

    Args:
        network: Network to train.
        extra: Module of the loss.
        objective: Maps the network, the images and the batch to the loss.
        batches: Maps a step to the indices and labels of its images.
        load: Maps a batch and its step to images.
        seconds: Time budget of the run, of which measuring takes at most a tenth; None for no limit.
    """
    batch = batches(0)
    images = load(batch, 0)
    modules = (network, extra)
    saved = [copy.deepcopy(module.state_dict()) for module in modules]
    times: list[float] = []
    for enabled in (False, True) * 4:
        start = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            loss, _ = objective(network, images, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if enabled and times[-1] > max(_LONG_PASS, 2 * times[-2]):
            break  # clearly slower
        if seconds is not None and sum(times) > _MEASURE_SHARE * seconds:
            break
    for module, values in zip(modules, saved, strict=True):
        module.load_state_dict(values)
    # Compare the fastest pass of each: other load only adds time. The first pair also loads code.
    faster = len(times) == 8 and min(times[2::2]) > _BFLOAT16_GAIN * min(times[3::2])
    return distributed.broadcast_from_rank0(lambda: faster)
