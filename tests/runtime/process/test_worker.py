"""A thread beside the loop: order, groups, errors, and its end."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swarmrt.runtime.peer.serving import leave_state
from swarmrt.runtime.process.worker import Outcome, Worker

WAIT_S = 10.0


def outcomes_of(jobs: int, *, in_groups: bool) -> tuple[list[int], list[int]]:
    """What comes of jobs that are all there before the first one ends; and how many at a time."""
    came: list[int] = []
    groups: list[int] = []

    class Together:
        def __enter__(self) -> None:
            groups.append(-len(came))

        def __exit__(self, *_: object) -> None:
            groups[-1] += len(came)

    async def run() -> None:
        all_there, done = threading.Event(), asyncio.Event()

        def take(outcome: Outcome) -> None:
            came.append(outcome.result)
            if len(came) == jobs:
                done.set()

        def job(number: int) -> int:
            assert all_there.wait(WAIT_S)
            return number

        with closing(Worker("test", in_groups=in_groups)) as worker:
            worker.deliver_within(Together())
            for number in range(jobs):
                worker.run(partial(job, number), take)
            all_there.set()
            async with asyncio.timeout(WAIT_S):
                await done.wait()

    asyncio.run(run())
    return came, groups


@pytest.mark.parametrize("jobs", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("in_groups", [False, True])
def test_all_outcomes_come_in_the_order_of_the_jobs(jobs: int, in_groups: bool) -> None:
    came, groups = outcomes_of(jobs, in_groups=in_groups)
    assert came == list(range(jobs)) and sum(groups) == jobs


def test_a_group_comes_when_as_many_wait_as_there_is_left() -> None:
    assert outcomes_of(8, in_groups=True)[1] == [4, 2, 1, 1]
    assert outcomes_of(8, in_groups=False)[1] == [1] * 8


def test_an_error_is_carried_to_the_loop_and_the_next_job_is_done() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def run() -> Any:
        with closing(Worker("test")) as worker:
            with pytest.raises(ValueError, match="no"):
                await worker.call(fail)
            return await worker.call(lambda: 3)

    assert asyncio.run(run()) == 3


def test_close_waits_for_all_jobs_and_leaves_no_thread() -> None:
    done: list[int] = []

    async def run() -> None:
        with closing(Worker("this-test", in_groups=True)) as worker:
            for number in range(50):
                worker.run(partial(done.append, number), lambda outcome: None)
        assert done == list(range(50))

    asyncio.run(run())
    assert "this-test" not in [thread.name for thread in threading.enumerate()]


def test_whoever_gives_up_waiting_does_not_break_it() -> None:
    async def run() -> int:
        go = threading.Event()
        with closing(Worker("test")) as worker:
            waiting = asyncio.create_task(worker.call(partial(go.wait, WAIT_S)))
            await asyncio.sleep(0)
            waiting.cancel()
            go.set()
            result: int = await worker.call(lambda: 5)
            return result

    assert asyncio.run(run()) == 5


def test_thread_that_hangs_is_left_behind_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that never answers keeps no process from leaving."""
    monkeypatch.setattr(Worker.close, "__defaults__", (0.5,))
    hangs = threading.Event()
    turns = 0

    async def run() -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        async with asyncio.timeout(WAIT_S):
            async with Worker("torch") as worker:
                worker.run(hangs.wait, lambda outcome: None)
        counting.cancel()

    asyncio.run(run())
    hangs.set()
    assert turns > 2, "the loop turns meanwhile"
    assert "torch hangs" in caplog.text


def test_state_is_not_left_by_a_device_that_hangs_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    left: list[str] = []

    async def run(hangs: threading.Event) -> str:
        with closing(Worker("torch")) as worker:
            worker.run(partial(hangs.wait, WAIT_S), lambda outcome: None)
            leave = partial(left.append, "version 7")
            said = await leave_state(worker, leave, "version 7 of stage 1", tmp_path, 1.0)
            hangs.set()
        return said

    told = asyncio.run(run(threading.Event()))
    assert told == "version 7 of stage 1 is not left: its device has not answered for 1 s"
    free = threading.Event()
    free.set()
    assert str(tmp_path) in asyncio.run(run(free)) and left == ["version 7"]
