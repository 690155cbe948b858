"""Schedule, state and results of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from torch import Tensor, nn

from ..data.samplers import Batch
from ..errors import TrainingError
from .checkpoint import State


@dataclass(frozen=True)
class Schedule:
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
class TrainResult(Generic[Network]):
    """A finished run: where it stands, and the weights to keep."""

    state: State
    network: Network


class Interrupted(TrainingError):  # noqa: N818 - no error of anybody's
    """Ctrl-C, SIGTERM or SIGHUP ended the run; the checkpoint holds all of it."""
