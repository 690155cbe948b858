"""Worker threads that decode, embed and search, outside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from .problems import overloaded

T = TypeVar("T")


class ThreadPool:
    """Fixed number of threads. Jobs that cannot start soon are rejected.

    At most ``waiting`` jobs wait, each for ``wait_seconds``. The threads are daemons, so that one that waits
    for an unresponsive server does not keep the process alive.
    """

    def __init__(self, threads: int, *, waiting: int, wait_seconds: float) -> None:
        self._threads, self._most, self._seconds = threads, threads + waiting, wait_seconds
        self._to_start = threading.Semaphore(threads)
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._unfinished: set[Future[Any]] = set()
        self._closed = False

    @property
    def pending(self) -> int:
        """Number of jobs running or waiting."""
        return sum(not job.done() for job in list(self._unfinished))

    def check(self) -> None:
        """Raise a `Problem` if too many jobs are pending; called before a request's body is read."""
        if self._closed:
            raise overloaded("The service is stopping")
        if (pending := self.pending) >= self._most:
            raise overloaded(f"The service is busy with {pending} requests")

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in a thread and return its result; raise a `Problem` if it cannot start."""
        self.check()
        mine: Future[T] = Future()
        self._unfinished.add(mine)
        mine.add_done_callback(self._unfinished.discard)
        self._queue.put((mine, job))
        if self._to_start.acquire(blocking=False):
            threading.Thread(target=self._serve, name="work", daemon=True).start()
        answer = asyncio.wrap_future(mine)
        try:
            done, _ = await asyncio.wait({answer}, timeout=self._seconds)
            if not done and mine.cancel():  # it has not started
                raise overloaded(f"The service was too busy to start within {self._seconds:g} seconds")
            return await answer
        finally:  # also if the caller was cancelled
            mine.cancel()
            answer.cancel()

    def close(self, seconds: float | None = None) -> bool:
        """Accept no more jobs, wait for the pending ones, and return True if none is left."""
        self._closed = True
        for _ in range(self._threads):
            self._queue.put(None)
        return not wait(list(self._unfinished), seconds).not_done

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            future, job = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, job  # a waiting thread must not keep a request's images in memory
