"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGHUP = getattr(signal, "SIGHUP", None)  # missing on Windows


def stop_signals() -> list[signal.Signals]:
    """Return SIGINT, SIGTERM, and SIGHUP unless it is ignored, for example by nohup."""
    found = [signal.SIGINT, signal.SIGTERM]
    if _SIGHUP is not None and signal.getsignal(_SIGHUP) != signal.SIG_IGN:
        found.append(_SIGHUP)
    return found


@contextmanager
def handling(
    signals: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the block runs, and restore the handlers after it.

    Only the main thread can set handlers; in any other thread nothing is changed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    old = {number: signal.signal(number, handler) for number in signals} if in_main else {}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for signals that would end the process, so that cleanup code runs.

    Handlers that the program has set itself are kept.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == _SIGHUP:  # a terminal that closes sends it more than once
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with handling([s for s in stop_signals() if signal.getsignal(s) == signal.SIG_DFL], interrupt):
        yield


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Record the first signal, so that a loop can finish its step and save.

    A second SIGINT or SIGTERM raises KeyboardInterrupt. A second SIGHUP does not: a terminal that closes
    sends it more than once.

    Yields:
        Function that returns True once a signal has arrived.
    """
    received: set[int] = set()

    def record(number: int, frame: FrameType | None) -> None:
        if number in received and number != _SIGHUP:
            raise KeyboardInterrupt
        received.add(number)

    with handling(stop_signals(), record):
        yield lambda: bool(received)
