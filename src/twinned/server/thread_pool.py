"""The threads that decode, embed and search, so that the event loop never does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .problems import overloaded

T = TypeVar("T")

_IDLE_SECONDS = 10.0  # a thread without a job ends


class Work:
    """A fixed number of threads. What they cannot begin soon is refused rather than kept.

    The threads are daemons: one that waits for a server that never answers does not hold the process.

    Args:
        threads: How many.
        waiting: How many jobs may wait for one of them.
        wait_seconds: A job that could not be begun by then is refused.
    """

    def __init__(self, threads: int, *, waiting: int, wait_seconds: float) -> None:
        self.threads = threads
        self._most = threads + waiting
        self._seconds = wait_seconds
        self._jobs: deque[_Job] = deque()  # not begun
        self._running = 0  # begun
        self._started = self._idle = 0  # threads
        self._closed = False
        self._changed = threading.Condition()

    @property
    def pending(self) -> int:
        """Jobs begun or waiting."""
        with self._changed:
            return len(self._jobs) + self._running

    def check(self) -> None:
        """Raise a `Problem` if there is too much to do: before a request's body is even read."""
        if self._closed:
            raise overloaded("the service is stopping")
        if (pending := self.pending) >= self._most:
            raise overloaded(f"the service is busy with {pending} requests")

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in one of the threads and return its result.

        Raises:
            Problem: If there is too much to do.
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
                raise overloaded(f"the service was too busy to begin within {self._seconds:g} seconds")
            result: T = await mine.answer
            return result
        finally:  # where the caller was cancelled as well
            self._drop(mine)
            mine.answer.cancel()

    def close(self, seconds: float | None = None) -> bool:
        """Take no more jobs, and wait until those that are there are done.

        Args:
            seconds: At most so long; None waits for all.

        Returns:
            Whether all are done.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._jobs and not self._running, seconds)

    def _drop(self, job: _Job) -> bool:
        """Forget a job that has not begun; False if it has."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self._changed.notify_all()
            return True

    def _serve(self) -> None:
        """Do jobs until there are none for a while."""
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
            del job, result, error  # an idle thread must not keep a request's images

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
    """A call, and the future of the event loop that waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Hand the outcome to the event loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller is left
            self._loop.call_soon_threadsafe(self._set, result, error)

    def _set(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():  # the caller has gone
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)
