"""The progress bar: on standard error, silent when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, cast


class Advance(Protocol):
    """Called as work gets done: how much more, a few words beside the bar, how much there is once known."""

    def __call__(self, amount: int = 1, note: str = "", total: int | None = None) -> None: ...


class _Steady:
    """A stream that drops what cannot be written: work goes on after its terminal is closed."""

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
    """Show a bar while the block runs.

    Args:
        what: What is being done, in two or three words.
        total: How many units there are; None if that is not known.
        show: False is silent, as is a standard error that is no terminal.

    Yields:
        A function to call as units get done.
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
            bar.update(task, advance=amount, total=total)  # a total of None leaves it as it is
            if note:
                bar.update(task, note=note)

        yield advance
