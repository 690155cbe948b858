"""The training doctor: each finding is said once, with its remedy, and only where it is so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned.data.samplers import Batch
from twinned.training.callbacks import TrainingMonitor
from twinned.training.state import Step

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
    stopped: str | None = None,
) -> list[str]:
    """What is said of a run of so many steps."""
    said: list[str] = []
    share = None if active is None else torch.tensor(active)
    doctor = TrainingMonitor(
        said.append, classes=frozenset(range(classes)), active=lambda: share, miner=miner
    )
    batch = Batch(index=np.arange(len(labels)), labels=np.array(labels))
    for step in range(first, first + steps):
        doctor.watch(Step(step, None, 1.0, 0.1, 1.0, len(labels), batch, embeddings))
    doctor.finish(stopped)
    return said


def test_a_healthy_run_is_not_remarked_on():
    assert run(100, active=0.5) == []
    assert run(100, embeddings=None) == []


def test_embeddings_that_are_all_alike_are_said_once_with_the_step():
    (said,) = run(100, embeddings=POINT)
    assert said.startswith("doctor: the embeddings have collapsed to one point (step 0)")
    assert "smaller --learning-rate" in said
    assert run(5, first=1, embeddings=POINT) == [], "most steps are passed over"


@pytest.mark.parametrize(("first", "since"), [(0, 0), (200, 200), (195, 200)])
def test_what_has_cost_nothing_for_five_looks_is_said_from_the_first_of_them(first, since):
    (said,) = run(60, first=first, active=0.0, miner="semi-hard", classes=0)
    assert f"has cost anything since step {since}:" in said
    assert "larger --margin, or mine the hardest (--set miner=batch-hard)" in said
    assert run(40, first=first, active=0.0, classes=0) == []


def test_the_hardest_are_not_recommended_to_who_mines_them():
    (said,) = run(60, active=0.0, miner="batch-hard")
    assert said.endswith("Use a larger --margin")


def test_classes_that_never_came_up_are_counted_where_the_run_was_seen_from_its_start():
    (said,) = run(10, classes=5)
    assert said.startswith("doctor: 3 of 5 classes (turns counted) were never drawn")
    assert run(10, first=7, classes=5) == []


def test_an_early_end_is_told_and_one_by_infinite_values_with_its_remedy_and_no_other_advice():
    assert run(10, stopped="time was up after step 9") == [
        "training stopped early: time was up after step 9; the best weights so far are kept"
    ]
    (said,) = run(10, classes=5, stopped="the loss (nan) was not finite at step 10")
    assert said == (
        "doctor: training stopped early: the loss (nan) was not finite at step 10; the best weights so far"
        " are kept. Use a smaller --learning-rate"
    )
