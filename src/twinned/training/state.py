"""State and results of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from torch import Tensor, nn

from ..data.samplers import Batch
from ..errors import TrainingError

Network = TypeVar("Network", bound=nn.Module)

# Maps the network, the images and the batch to the loss (a scalar) and the embeddings.
Objective: TypeAlias = Callable[[Network, Tensor, Batch], tuple[Tensor, Tensor | None]]


class StopReason(StrEnum):
    """Reason why a run ended before its last step."""

    NOT_FINITE = "not-finite"
    TIME_IS_UP = "time-is-up"
    CALLBACK = "callback"


@dataclass
class State:
    """Progress of a run, without its weights; the step is also the state of every random generator."""

    step: int = 0  # number of steps taken
    total: int | None = None  # steps to take; None until the speed has been measured
    seconds: float = 0.0  # spent in the loop, also before an interruption
    bfloat16: bool = False  # a resumed run keeps the precision it started with
    best_eer: float | None = None  # lowest held-out equal error rate so far
    best_step: int = 0  # steps before the best evaluation; 0 before the first one
    stopped: StopReason | None = None
    stopped_because: str = ""  # for people
    history: list[dict[str, float]] = field(default_factory=list)  # lines of history.csv

    @property
    def finished(self) -> bool:
        """True after the last step or an early stop."""
        return self.stopped is not None or (self.total is not None and self.step >= self.total)

    def stop(self, reason: StopReason, because: str) -> None:
        """End the run before its last step."""
        self.stopped, self.stopped_because = reason, because


class Step(NamedTuple):
    """Report of one step, passed to callbacks."""

    step: int  # from 0
    total: int | None  # steps to take; None until the speed has been measured
    loss: float  # of the whole batch
    learning_rate: float
    seconds: float  # spent in the loop so far
    images: int  # number of images in the batch
    batch: Batch
    embeddings: Tensor | None  # shape ``(images, d)``; None if the objective returns none


class Scores(NamedTuple):
    """Result of an evaluation, each value in [0, 1].

    ``nan`` without data to measure on; an equal error rate of infinity if embeddings are not finite.
    """

    train_accuracy: float
    held_out_accuracy: float
    held_out_eer: float


@dataclass(frozen=True, eq=False)
class TrainResult(Generic[Network]):
    """Result of a run: its final state and the network with the weights to keep."""

    state: State
    network: Network


class Interrupted(TrainingError):  # noqa: N818 - not an error: the user asked for it
    """A run was ended by Ctrl-C, SIGTERM or SIGHUP; its checkpoint is complete."""
