"""Work aside: its order, its errors, and an end that does not wait for ever."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from swarmrt.runtime.process.aside import Aside

HANGS = """
import threading
from swarmrt.runtime.process.aside import Aside

aside = Aside("device")
began = threading.Event()
aside.submit(began.set)
aside.submit(threading.Event().wait)
began.wait(10)
aside.close(0.1)
print("left")
"""


def test_jobs_are_done_in_their_order_and_errors_come_with_their_job() -> None:
    def fail() -> None:
        raise ValueError("no")

    aside, done = Aside("test"), list[int]()
    aside.submit(lambda: done.append(1))
    failed, last = aside.submit(fail), aside.submit(lambda: done.append(2))
    aside.close()
    with pytest.raises(ValueError, match="no"):
        failed.result(10)
    last.result(10)
    assert done == [1, 2]


def test_job_that_nobody_wants_any_more_is_not_done() -> None:
    aside, go, done = Aside("test"), threading.Event(), list[int]()
    aside.submit(lambda: go.wait(10))
    unwanted, last = aside.submit(lambda: done.append(1)), aside.submit(lambda: done.append(2))
    unwanted.cancel()
    go.set()
    last.result(10)
    aside.close()
    assert done == [2]


def test_device_that_hangs_keeps_no_process() -> None:
    """A copy to or from it was begun, and never ends."""
    ran = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "left\n"), ran.stderr
