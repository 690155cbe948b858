"""Progress bar on standard error, silent unless that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, cast


class Advance(Protocol):
    """Callback with the completed units, a text beside the bar, and the total once it is known."""

    def __call__(self, amount: int = 1, note: str = "", total: int | None = None) -> None: ...


class _Steady:
    """Stream that ignores write errors, so that work continues after the terminal is closed."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def progress_bar(what: str, total: int | None, *, show: bool = True) -> Iterator[Advance]:
    """Show a progress bar while the block runs.

    Args:
        what: Description of the work, in two or three words.
        total: Number of units; None if unknown.
        show: Show the bar if standard error is a terminal.

    Yields:
        Function to call when units are completed.
    """
    if not show or not sys.stderr.isatty():
        yield lambda amount=1, note="", total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(file=cast(IO[str], _Steady(sys.stderr)))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(amount: int = 1, note: str = "", total: int | None = None) -> None:
            bar.update(task, advance=amount, total=total)  # None keeps the total
            if note:
                bar.update(task, note=note)

        yield advance
