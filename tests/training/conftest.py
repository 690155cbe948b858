"""Fixtures of the training tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twinned.evaluation import reference_sets, thresholds, verification
from twinned.metrics import bootstrap
from twinned.metrics.comparisons import Comparisons
from twinned.training.callbacks import Callback
from twinned.training.state import Step


class OnStep(Callback):
    """Call a function after each step; its result is ignored."""

    def __init__(self, function: Callable[[Step], Any]) -> None:
        self.function = function

    def on_step(self, step: Step) -> None:
        self.function(step)


class FakeClock:
    """Clock that moves only by `advance`; it stands in for ``time.monotonic``."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


class NoteHandler(logging.Handler):
    """Call a function with the text of each note."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        super().__init__()
        self.function = function

    def emit(self, record: logging.LogRecord) -> None:
        self.function(record.getMessage())


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the bootstrap replicates and reference sets of thresholds to keep the tests fast."""

    def few(pairs: Comparisons, *, count: int, seed: int) -> Iterator[Comparisons]:
        return bootstrap.replicates(pairs, count=min(count, 20), seed=seed)

    monkeypatch.setattr(thresholds, "replicates", few)
    monkeypatch.setattr(verification, "replicates", few)
    monkeypatch.setattr(reference_sets, "_SETS", 40)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Fake clock that starts at 0 seconds and replaces ``time.monotonic``."""
    fake = FakeClock()
    monkeypatch.setattr(time, "monotonic", fake)
    return fake


@pytest.fixture(scope="session")
def on_step() -> type[OnStep]:
    """Callback that calls a function after each step."""
    return OnStep


@pytest.fixture(scope="session")
def with_observers() -> Callable[..., Callable[..., Any]]:
    """Decorator that adds ``on_step=`` and ``on_note=`` to a training function."""

    def observe(train: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, on_step: Any = None, on_note: Any = None, **given: Any) -> Any:
            logger = logging.getLogger("twinned")
            level = logger.level
            handler = NoteHandler(on_note or (lambda text: None))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                return train(*args, callbacks=[] if on_step is None else [OnStep(on_step)], **given)
            finally:
                logger.removeHandler(handler)
                logger.setLevel(level)

        return run

    return observe
