"""Fixtures of the training tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from twinned.training.callbacks import Callback
from twinned.training.state import Step


class OnStep(Callback):
    """Call a function after each step; its result is ignored."""

    def __init__(self, function: Callable[[Step], Any]) -> None:
        self.function = function

    def on_step(self, step: Step) -> None:
        self.function(step)


class NoteHandler(logging.Handler):
    """Call a function with the text of each note."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        super().__init__()
        self.function = function

    def emit(self, record: logging.LogRecord) -> None:
        self.function(record.getMessage())


@pytest.fixture(scope="session")
def on_step() -> type[OnStep]:
    """Callback that calls a function after each step."""
    return OnStep


@pytest.fixture(scope="session")
def listening() -> Callable[..., Callable[..., Any]]:
    """Decorator that gives a training function ``on_step=`` and ``say=`` for callbacks and notes."""

    def listen(train: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, on_step: Any = None, say: Any = None, **given: Any) -> Any:
            logger = logging.getLogger("twinned")
            level = logger.level
            handler = NoteHandler(say or (lambda text: None))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                return train(*args, callbacks=[] if on_step is None else [OnStep(on_step)], **given)
            finally:
                logger.removeHandler(handler)
                logger.setLevel(level)

        return run

    return listen
