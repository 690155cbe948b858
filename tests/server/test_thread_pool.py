"""ThreadPool is done in threads; what is too much is refused, and the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from twinned.server.problems import Problem
from twinned.server.thread_pool import ThreadPool


def test_what_does_not_fit_is_refused_at_once_and_what_fits_is_done() -> None:
    async def ask() -> tuple[list[object], float]:
        work = ThreadPool(2, waiting=3, wait_seconds=5)
        release = threading.Event()

        def job() -> str:
            release.wait(5)
            return "done"

        tasks = [asyncio.create_task(work.run(job)) for _ in range(8)]
        began = time.perf_counter()
        await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        refused_after = time.perf_counter() - began
        release.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert work.pending == 0
        assert await work.run(lambda: 1) == 1
        work.close()
        return list(outcomes), refused_after

    outcomes, refused_after = asyncio.run(ask())
    problems = [one for one in outcomes if isinstance(one, Problem)]
    assert outcomes.count("done") == 5
    assert [(one.status, one.headers) for one in problems] == [(503, {"Retry-After": "1"})] * 3
    assert refused_after < 0.5


def test_what_waited_too_long_is_refused_rather_than_begun() -> None:
    async def ask() -> list[object]:
        work = ThreadPool(1, waiting=4, wait_seconds=0.05)
        outcomes = await asyncio.gather(
            work.run(lambda: time.sleep(0.3)), work.run(lambda: "begun"), return_exceptions=True
        )
        work.close()
        return list(outcomes)

    first, second = asyncio.run(ask())
    assert first is None
    assert isinstance(second, Problem)
    assert second.status == 503


def test_the_event_loop_goes_on_while_threads_work() -> None:
    async def ask() -> float:
        work = ThreadPool(2, waiting=4, wait_seconds=5)
        jobs = [asyncio.create_task(work.run(lambda: time.sleep(0.3))) for _ in range(2)]
        longest = 0.0
        while not all(job.done() for job in jobs):
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - began)
        work.close()
        return longest

    assert asyncio.run(ask()) < 0.2


def test_a_caller_who_goes_away_leaves_the_thread_counted_until_it_is_free() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=0, wait_seconds=5)
        release = threading.Event()
        task = asyncio.create_task(work.run(lambda: release.wait(5)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        assert work.pending == 1
        release.set()
        work.close()
        assert work.pending == 0

    asyncio.run(ask())


def test_an_error_of_a_job_reaches_who_asked() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=1, wait_seconds=5)
        try:
            await work.run(lambda: 1 / 0)
        finally:
            assert work.pending == 0
            work.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask())


def test_what_cannot_begin_is_refused_though_no_thread_becomes_free() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=4, wait_seconds=0.05)
        release = threading.Event()
        stuck = asyncio.create_task(work.run(lambda: release.wait(30)))
        await asyncio.sleep(0)  # it is handed to the thread
        with pytest.raises(Problem, match="too busy to start"):
            await work.run(lambda: "begun")
        assert work.pending == 1
        assert not work.close(0.05)
        with pytest.raises(Problem, match="is stopping"):
            await work.run(lambda: "begun")
        release.set()
        assert await stuck
        assert work.close()

    asyncio.run(ask())
