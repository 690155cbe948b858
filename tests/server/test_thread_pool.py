"""ThreadPool: queue limits, timeouts, and a responsive event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from twinned.server.problems import Problem
from twinned.server.thread_pool import ThreadPool


def test_jobs_beyond_the_queue_are_refused_at_once() -> None:
    async def ask() -> tuple[list[object], int]:
        work = ThreadPool(2, waiting=3, wait_seconds=60)
        release = threading.Event()

        def job() -> str:
            assert release.wait(60)
            return "done"

        tasks = [asyncio.create_task(work.run(job)) for _ in range(8)]
        refused, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert work.pending == 0
        assert await work.run(lambda: 1) == 1
        work.close()
        return list(outcomes), len(refused)

    outcomes, refused = asyncio.run(ask())
    problems = [one for one in outcomes if isinstance(one, Problem)]
    assert outcomes.count("done") == 5
    assert [(one.status, one.headers) for one in problems] == [(503, {"Retry-After": "1"})] * 3
    assert refused == 3, "before the first job ended"


def test_event_loop_runs_while_threads_work() -> None:
    async def ask() -> list[bool]:
        work = ThreadPool(2, waiting=4, wait_seconds=60)
        release = threading.Event()
        jobs = [asyncio.create_task(work.run(lambda: release.wait(60))) for _ in range(2)]
        while work.pending < 2:
            await asyncio.sleep(0.005)
        release.set()  # not reached if a job blocks the event loop
        released = [await job for job in jobs]
        work.close()
        return released

    assert asyncio.run(ask()) == [True, True]


def test_cancelled_job_counts_until_its_thread_is_free() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=0, wait_seconds=5)
        started, release = threading.Event(), threading.Event()

        def job() -> bool:
            started.set()
            return release.wait(60)

        task = asyncio.create_task(work.run(job))
        while not started.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert work.pending == 1
        release.set()
        work.close()
        assert work.pending == 0

    asyncio.run(ask())


def test_job_error_is_raised_to_the_caller() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=1, wait_seconds=5)
        try:
            await work.run(lambda: 1 / 0)
        finally:
            assert work.pending == 0
            work.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask())


def test_job_that_cannot_start_in_time_is_refused() -> None:
    async def ask() -> None:
        work = ThreadPool(1, waiting=4, wait_seconds=0.5)  # long enough for the first job to start
        release = threading.Event()
        stuck = asyncio.create_task(work.run(lambda: release.wait(60)))
        await asyncio.sleep(0)  # the job is submitted
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
