"""Progress on standard error, if that is a terminal: one line, of the innermost work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from rich.progress import Progress


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


_display: Progress | None = None


@contextmanager
def progress_bar(what: str, total: int | None = None, *, show: bool = True) -> Iterator[Advance]:
    """Show a progress bar while the block runs; yield the function to call when units are completed.

    The total is None if it is unknown, and 0 for no bar.
    """
    if not show or total == 0 or not sys.stderr.isatty():
        yield lambda amount=1, note="", total=None: None
        return
    with _opened() as bar:
        outer = [task.id for task in bar.tasks if task.visible]
        for one in outer:
            bar.update(one, visible=False)
        task = bar.add_task(what, total=total, note="")

        def advance(amount: int = 1, note: str = "", total: int | None = None) -> None:
            bar.update(task, advance=amount, total=total)  # None keeps the total
            if note:
                bar.update(task, note=note)

        try:
            yield advance
        finally:
            bar.remove_task(task)
            for one in outer:
                bar.update(one, visible=True)


@contextmanager
def _opened() -> Iterator[Progress]:
    """Open the display, or return the open one."""
    global _display
    if _display is not None:
        yield _display
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn("{task.completed:,.0f}/{task.total:,.0f}", text_format_no_percentage=""),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(file=cast(IO[str], _Steady(sys.stderr)))
    with Progress(*columns, console=console, transient=True) as _display:
        try:
            yield _display
        finally:
            _display = None
