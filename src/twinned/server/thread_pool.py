"""Worker threads that decode, embed and search, outside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .problems import overloaded

T = TypeVar("T")

_IDLE_SECONDS = 10.0  # a thread without a job ends after this time


class ThreadPool:
    """Fixed number of threads. Jobs that cannot start soon are rejected.

    The threads are daemons, so one that waits for an unresponsive server does not keep the process alive.

    Args:
        threads: Number of threads.
        waiting: Maximum number of jobs waiting for a thread.
        wait_seconds: Seconds after which a job that has not started is rejected.
    """

    def __init__(self, threads: int, *, waiting: int, wait_seconds: float) -> None:
        self.threads = threads
        self._most = threads + waiting
        self._seconds = wait_seconds
        self._jobs: deque[_Job] = deque()  # not started
        self._running = 0  # started
        self._started = self._idle = 0  # threads
        self._closed = False
        self._changed = threading.Condition()

    @property
    def pending(self) -> int:
        """Number of jobs running or waiting."""
        with self._changed:
            return len(self._jobs) + self._running

    def check(self) -> None:
        """Raise a `Problem` if too many jobs are pending; called before a request's body is read."""
        if self._closed:
            raise overloaded("The service is stopping")
        if (pending := self.pending) >= self._most:
            raise overloaded(f"The service is busy with {pending} requests")

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in one of the threads and return its result.

        Raises:
            Problem: If too many jobs are pending.
        """
        self.check()
        mine = _Job(job)
        with self._changed:
            self._jobs.append(mine)
            if self._idle < len(self._jobs) and self._started < self.threads:
                self._started += 1
                threading.Thread(target=self._serve, name="work", daemon=True).start()
            self._changed.notify()
        try:
            done, _ = await asyncio.wait({mine.answer}, timeout=self._seconds)
            if not done and self._drop(mine):
                raise overloaded(f"The service was too busy to start within {self._seconds:g} seconds")
            result: T = await mine.answer
            return result
        finally:  # also if the caller was cancelled
            self._drop(mine)
            mine.answer.cancel()

    def close(self, seconds: float | None = None) -> bool:
        """Accept no more jobs, wait for the pending ones, and return True if none is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._jobs and not self._running, seconds)

    def _drop(self, job: _Job) -> bool:
        """Remove a job that has not started; return False if it has."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self._changed.notify_all()
            return True

    def _serve(self) -> None:
        """Run jobs until there is none for `_IDLE_SECONDS`."""
        while (job := self._next()) is not None:
            result, error = None, None
            try:
                result = job.call()
            except BaseException as raised:
                error = raised
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            job.resolve(result, error)
            del job, result, error  # an idle thread must not keep a request's images in memory

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs or self._closed, _IDLE_SECONDS)
            self._idle -= 1
            if not self._jobs:
                self._started -= 1
                return None
            self._running += 1
            return self._jobs.popleft()


class _Job:
    """Call, and the future through which the event loop waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Pass the outcome to the event loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so there is no caller
            self._loop.call_soon_threadsafe(self._set, result, error)

    def _set(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():  # the caller has disconnected
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)
