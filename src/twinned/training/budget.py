"""Time budget of a run and the choice of precision."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.samplers import Batch
from ..errors import TrainingError
from . import checkpoint
from .checkpoint import State
from .state import Network, Objective, Schedule, Scores

# Steps before the speed is measured, and the share of the budget that measuring may take.
_SETTLE_STEPS, _MEASURE_STEPS, _MEASURE_SHARE = 3, 12, 0.1


# bfloat16 must be this much faster than float32 to be chosen: it costs digits.
_BFLOAT16_GAIN = 1.2


_LONG_PASS = 1.0  # seconds


class _Speed:
    """From the speed of the steps so far to the number of them that fits the budget."""

    def __init__(self, plan: Schedule, state: State, began: float) -> None:
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
