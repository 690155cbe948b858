"""The threads that decode, embed and search, so that the event loop never does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .problems import overloaded

T = TypeVar("T")


class Work:
    """A fixed number of threads. What they cannot begin soon is refused rather than kept.

    Args:
        threads: How many.
        waiting: How many jobs may wait for one of them.
        wait_seconds: A job that could not be begun by then is refused.
    """

    def __init__(self, threads: int, *, waiting: int, wait_seconds: float) -> None:
        self.threads = threads
        self.pending = 0  # begun or waiting
        self._counting = threading.Lock()
        self._most = threads + waiting
        self._seconds = wait_seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="work")

    def check(self) -> None:
        """Raise a `Problem` if there is too much to do: before a request's body is even read."""
        if self.pending >= self._most:
            raise overloaded(f"the service is busy with {self.pending} requests")

    async def run(self, job: Callable[[], T]) -> T:
        """What the job returns, from one of the threads.

        Raises:
            Problem: If there is too much to do.
        """
        self.check()
        latest = time.monotonic() + self._seconds

        def begin() -> T:
            if time.monotonic() > latest:
                raise overloaded(f"the service was too busy to begin within {self._seconds:g} seconds")
            return job()

        future = self._pool.submit(begin)
        with self._counting:
            self.pending += 1
        future.add_done_callback(self._done)  # when the thread is free again, be the caller there or not
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown()

    def _done(self, _: object) -> None:
        with self._counting:
            self.pending -= 1
