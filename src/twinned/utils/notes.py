"""Notes to the user: logged by ``twinned``, and collected for the model card."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

logger = logging.getLogger("twinned")


class Note(NamedTuple):
    """A message to the user."""

    code: str  # in kebab case, for programs to test
    text: str  # one sentence, without a period at the end


_collected: ContextVar[list[Note] | None] = ContextVar("collected", default=None)
_muted: ContextVar[bool] = ContextVar("muted", default=False)


def note(code: str, text: str, *, level: int = logging.INFO) -> None:
    """Log a note, and append it to the list of the innermost `collect`."""
    if _muted.get():
        return
    if (collected := _collected.get()) is not None:
        collected.append(Note(code, text))
    logger.log(level, text, extra={"code": code})


@contextmanager
def collect() -> Iterator[list[Note]]:
    """Collect the notes of the block; those of an inner `collect` are only in the inner list."""
    found: list[Note] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


@contextmanager
def muted() -> Iterator[None]:
    """Discard the notes of the block, for example those of pilot runs."""
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)
