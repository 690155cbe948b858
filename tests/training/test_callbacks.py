"""Callbacks: notes of the monitor, evaluation, best weights, and stopping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned.data.samplers import Batch
from twinned.training.callbacks import TrainingMonitor
from twinned.training.state import State, Step, StopReason
from twinned.utils.notes import Note, collect

SPREAD = torch.eye(6)
POINT = torch.ones(6, 6) + 0.001 * torch.eye(6)


def run(
    steps: int,
    *,
    first: int = 0,
    embeddings: torch.Tensor | None = SPREAD,
    labels: tuple[int, ...] = (0, 1),
    classes: int = 2,
    active: float | None = None,
    miner: str | None = None,
    stopped: StopReason | None = None,
) -> list[Note]:
    """Notes of a run of that many steps."""
    share = None if active is None else torch.tensor(active)
    monitor = TrainingMonitor(classes=frozenset(range(classes)), active=lambda: share, miner=miner)
    batch = Batch(index=np.arange(len(labels)), labels=np.array(labels))
    with collect() as notes:
        for step in range(first, first + steps):
            monitor.on_step(Step(step, None, 1.0, 0.1, 1.0, len(labels), batch, embeddings))
        monitor.on_train_end(State(stopped=stopped, stopped_because="" if stopped is None else "the reason"))
    return notes


def test_a_healthy_run_is_not_remarked_on():
    assert run(100, active=0.5) == []
    assert run(100, embeddings=None) == []


def test_embeddings_that_are_all_alike_are_said_once_with_the_step():
    (note,) = run(100, embeddings=POINT)
    assert note.code == "collapsed-embeddings"
    assert "step 0" in note.text
    assert "smaller learning rate" in note.text
    assert run(5, first=1, embeddings=POINT) == [], "most steps are passed over"


@pytest.mark.parametrize(("first", "since"), [(0, 0), (200, 200), (195, 200)])
def test_what_has_cost_nothing_for_five_looks_is_said_from_the_first_of_them(first, since):
    (note,) = run(60, first=first, active=0.0, miner="semi-hard", classes=0)
    assert note.code == "no-active-pairs"
    assert f"since step {since}," in note.text
    assert "larger margin, or miner batch-hard" in note.text
    assert run(40, first=first, active=0.0, classes=0) == []


def test_the_hardest_are_not_recommended_to_who_mines_them():
    (note,) = run(60, active=0.0, miner="batch-hard")
    assert note.text.endswith("Use a larger margin")


def test_classes_that_never_came_up_are_counted_where_the_run_was_seen_from_its_start():
    (note,) = run(10, classes=5)
    assert note.code == "undrawn-classes"
    assert note.text.startswith("3 of 5 classes")
    assert run(10, first=7, classes=5) == []


def test_an_early_end_is_noted_and_infinite_values_without_other_advice():
    codes = [note.code for note in run(10, classes=5, stopped=StopReason.TIME_IS_UP)]
    assert codes == ["stopped-early", "undrawn-classes"]
    (note,) = run(10, classes=5, stopped=StopReason.NOT_FINITE)
    assert note.code == "not-finite"
    assert "the reason" in note.text
    assert note.text.endswith("Use a smaller learning rate")
