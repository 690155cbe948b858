"""Callbacks of the training loop: evaluation, best weights and monitoring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from ..errors import ImageError, SettingError, TrainingError
from ..utils.notes import note
from . import distributed
from .schedule import Schedule
from .state import Interrupted, Network, Scores, State, Step, StopReason

# Steps between two evaluations are at least this many, so that a short run does not spend its time on them.
_MIN_EVALUATION_INTERVAL = 10
# Steps between two checks of the monitor.
_CHECK_INTERVAL = 10
# Embeddings have collapsed if their standard deviation is below this fraction of their norm.
_COLLAPSED = 0.02
# Share of the classes that may be left out without a note.
_MOST_UNDRAWN = 0.1
# Successive checks without an active pair or triplet before a note.
_IDLE_CHECKS = 5
# An equal error rate within this factor of the best one counts as equal; the later weights are kept.
_TIE = 1.02


class Callback:
    """Base class of callbacks; each method does nothing by default.

    Callbacks see the training of the model that is saved, not the pilot runs that choose an encoder, nor the
    networks of cross-validation; these have the same parts and half of the steps that were taken. With
    several processes, callbacks run in the first one only.

    Example:
        >>> class StopAtLoss(Callback):
        ...     def on_step(self, step: Step) -> bool:
        ...         return step.loss < 0.1
    """

    def on_step(self, step: Step) -> bool | None:
        """Handle the end of a step; return True to stop training."""

    def on_evaluation(self, scores: Scores, network: nn.Module) -> bool | None:
        """Handle an evaluation of the averaged network; return True to stop training.

        The scores on held-out classes are NaN where cross-validation takes their place.
        """

    def on_train_end(self, state: State) -> None:
        """Handle the end of training; an interrupted run does not get here."""


def check_callbacks(callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """Return callbacks if they are a sequence of `Callback` objects; raise a `SettingError` otherwise."""
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    wrong = [one for one in given if not isinstance(one, Callback)]
    if wrong or given is not callbacks:
        got = f"the class {wrong[0].__name__}" if wrong and isinstance(wrong[0], type) else repr(given[0])
        raise SettingError(f"Option callbacks is a list of twinned.Callback objects; got {got}")
    return callbacks


@dataclass(frozen=True, eq=False)
class CallbackGroup(Callback):
    """Callbacks of the user, called in order; the run is saved if one fails."""

    callbacks: Sequence[Callback]
    save: Callable[[], Path | None]

    def on_step(self, step: Step) -> bool:
        return self._call("on_step", step)

    def on_evaluation(self, scores: Scores, network: nn.Module) -> bool:
        return self._call("on_evaluation", scores, network)

    def on_train_end(self, state: State) -> None:
        self._call("on_train_end", state)

    def _call(self, method: str, *given: Any) -> bool:
        stops = []
        for callback in self.callbacks:
            try:
                stops.append(getattr(callback, method)(*given))
            except Interrupted:
                raise
            except Exception as error:
                what = f"Callback {type(callback).__name__}.{method}"
                why = f"{type(error).__name__}: {error}"
                raise TrainingError(f"{what} failed ({why}); {_kept(self.save())}") from error
        return any(stops)


@contextmanager
def saved_on_error(save: Callable[[], Path | None]) -> Iterator[None]:
    """Save the run if an image cannot be read any more, and name the checkpoint in the error."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.source, f"{error.reason}; {_kept(save())}") from error


def _kept(saved: Path | None) -> str:
    if saved is None:
        return "nothing is saved, because the run has no output"
    return f"the run is saved in {saved}; continue it with `resume=True`"


@dataclass(frozen=True, eq=False)
class Evaluation(Callback, Generic[Network]):
    """Evaluate the averaged network at regular steps, record the scores, and keep the best weights.

    The best are those with the lowest equal error rate on held-out classes; they are copied to ``best``.
    """

    evaluate: Callable[[Network], Scores] | None
    average: Network
    best: Network
    state: State
    schedule: Schedule
    callback: Callback

    def on_step(self, step: Step) -> bool:
        state, evaluate = self.state, self.evaluate
        if evaluate is None or state.total is None:
            return False
        interval = max(_MIN_EVALUATION_INTERVAL, state.total // self.schedule.evaluations)
        if state.step % interval and state.step != state.total:
            return False
        scores = distributed.broadcast_from_rank0(lambda: evaluate(self.average))
        state.history.append(
            {
                "epoch": round(state.step / self.schedule.epoch_steps, 2),
                "step": state.step,
                "seconds": round(state.seconds, 2),
                "loss": step.loss,
                "train_accuracy": scores.train_accuracy,
                "held_out_accuracy": scores.held_out_accuracy,
                "held_out_eer": scores.held_out_eer,
                "learning_rate": step.learning_rate,
            }
        )
        self._keep_better(scores.held_out_eer)
        return bool(self.callback.on_evaluation(scores, self.average))

    def _keep_better(self, eer: float) -> None:
        state, lowest = self.state, self.state.best_eer
        if math.isinf(eer):  # the weights are no longer finite
            return
        if math.isnan(eer) or lowest is None or eer <= lowest * _TIE:
            self.best.load_state_dict(self.average.state_dict())
            state.best_step = state.step
            if not math.isnan(eer):
                state.best_eer = min(eer, 1.0 if lowest is None else lowest)

    def keep_last(self) -> None:
        """Keep the averaged weights of a run that was never evaluated, unless something is not finite."""
        evaluate, average = self.evaluate, self.average
        if self.state.best_step > 0:
            return
        learned = self.state.step > 0 or self.state.stopped is not StopReason.NOT_FINITE
        finite = learned and all(torch.isfinite(parameter).all() for parameter in average.parameters())
        if finite and evaluate is not None:
            scores = distributed.broadcast_from_rank0(lambda: evaluate(average))
            finite = not math.isinf(scores.held_out_eer)
        if not finite:
            reason = self.state.stopped_because or "The weights became infinite"
            raise TrainingError(
                f"{reason}, before any evaluation with finite embeddings. Use a smaller learning rate."
            )
        self.best.load_state_dict(average.state_dict())


class TrainingMonitor(Callback):
    """Note typical failures of training, each once: collapse, no active pairs, classes never drawn.

    ``classes`` are the labels that batches may draw, none for pairs; ``active`` returns the fraction of the
    last batch's pairs or triplets with a positive loss, if the loss reports it.
    """

    def __init__(
        self, *, classes: frozenset[int], active: Callable[[], Tensor | None], miner: str | None = None
    ) -> None:
        self.classes, self.active, self.miner = classes, active, miner
        self._noted: set[str] = set()
        self._undrawn = set(classes)
        self._idle = 0
        self._from_start = False  # False for a resumed run

    def on_step(self, step: Step) -> None:
        if self._undrawn:
            self._undrawn.difference_update(step.batch.labels.tolist())
        self._from_start = self._from_start or step.step == 1
        if step.step % _CHECK_INTERVAL:
            return
        if step.embeddings is not None and len(step.embeddings) > 1:
            self._check_spread(step.embeddings.detach(), step.step)
        active = self.active()
        self._idle = self._idle + 1 if active is not None and float(active) == 0 else 0
        if self._idle >= _IDLE_CHECKS:
            mine = "" if self.miner == "batch-hard" else ", or miner batch-hard"
            self._note(
                "no-active-pairs",
                "No pair or triplet has had a positive loss since step"
                f" {step.step - _CHECK_INTERVAL * (self._idle - 1)}, so training makes no progress. Use a"
                f" larger margin{mine}",
            )

    def on_train_end(self, state: State) -> None:
        if state.stopped is not None:
            early = f"Training stopped early: {state.stopped_because}. The best weights so far are kept"
            if state.stopped is StopReason.NOT_FINITE:
                self._note("not-finite", f"{early}. Use a smaller learning rate")
                return
            note("stopped-early", early)
        if self._from_start and len(self._undrawn) > _MOST_UNDRAWN * len(self.classes):
            self._note(
                "undrawn-classes",
                f"{len(self._undrawn)} of {len(self.classes)} classes, rotated ones included, were never"
                " drawn. Train for more steps, or with more classes_per_batch",
            )

    def _check_spread(self, embeddings: Tensor, step: int) -> None:
        spread = embeddings.std(dim=0).norm()
        length = embeddings.norm(dim=1).mean()
        if not torch.isfinite(length) or spread > _COLLAPSED * length:
            return
        self._note(
            "collapsed-embeddings",
            f"The embeddings have collapsed to one point (step {step}), so all images look the same. Use a"
            " smaller learning rate, loss supcon, or, with triplets, miner semi-hard",
        )

    def _note(self, code: str, text: str) -> None:
        if code not in self._noted:
            self._noted.add(code)
            note(code, text)
