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
    """Return the notes of a run of `steps` steps."""
    share = None if active is None else torch.tensor(active)
    monitor = TrainingMonitor(classes=frozenset(range(classes)), active=lambda: share, miner=miner)
    batch = Batch(index=np.arange(len(labels)), labels=np.array(labels))
    with collect() as notes:
        for step in range(first, first + steps):
            monitor.on_step(Step(step, None, 1.0, 0.1, 1.0, len(labels), batch, embeddings))
        monitor.on_train_end(State(stopped=stopped, stopped_because="" if stopped is None else "the reason"))
    return notes


def test_healthy_run_has_no_notes():
    assert run(100, active=0.5) == []
    assert run(100, embeddings=None) == []


def test_collapsed_embeddings_are_noted_once_with_the_step():
    (note,) = run(100, embeddings=POINT)
    assert note.code == "collapsed-embeddings"
    assert "step 0" in note.text
    assert "smaller learning rate" in note.text
    assert run(5, first=1, embeddings=POINT) == [], "most steps are not checked"


@pytest.mark.parametrize(("first", "since"), [(0, 0), (200, 200), (195, 200)])
def test_zero_active_pairs_are_noted_from_the_first_check(first, since):
    (note,) = run(60, first=first, active=0.0, miner="semi-hard", classes=0)
    assert note.code == "no-active-pairs"
    assert f"since step {since}," in note.text
    assert "larger margin, or miner batch-hard" in note.text
    assert run(40, first=first, active=0.0, classes=0) == []


def test_batch_hard_is_not_recommended_when_in_use():
    (note,) = run(60, active=0.0, miner="batch-hard")
    assert note.text.endswith("Use a larger margin")


def test_undrawn_classes_are_counted_for_complete_runs_only():
    (note,) = run(10, classes=5)
    assert note.code == "undrawn-classes"
    assert note.text.startswith("3 of 5 classes")
    assert run(10, first=7, classes=5) == []


def test_stop_reasons_are_noted():
    codes = [note.code for note in run(10, classes=5, stopped=StopReason.TIME_IS_UP)]
    assert codes == ["stopped-early", "undrawn-classes"]
    (note,) = run(10, classes=5, stopped=StopReason.NOT_FINITE)
    assert note.code == "not-finite"
    assert "the reason" in note.text
    assert note.text.endswith("Use a smaller learning rate")
