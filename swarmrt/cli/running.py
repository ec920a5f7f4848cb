"""Running an async command: event loop, signals, logs and exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from swarmrt.cli.signals import leave_quietly_on_signals
from swarmrt.errors import SwarmError
from swarmrt.runtime.stopping import StopSwitch

T = TypeVar("T")


def run(command: Callable[[StopSwitch], Awaitable[T]], *, with_parent: bool = False) -> T | None:
    """Run to the end, or drained by Ctrl-C or SIGTERM (then None).

    With `with_parent`, the end of standard input stops it too, so that nothing outlives a
    launcher that was killed. An error for people is raised alone, without its task group.
    """
    _show_logs()

    async def main() -> T | None:
        task = asyncio.current_task()
        assert task is not None
        switch = StopSwitch(task)
        switch.on_signals()
        if with_parent:
            _stop_at_end_of_input(switch)
        try:
            return await command(switch)
        except asyncio.CancelledError:
            if not switch.thrown:
                raise
            return None

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main())
    except BaseExceptionGroup as group:
        error = _first_for_people(group)
        if error is None:
            raise
        raise error from None
    finally:
        leave_quietly_on_signals()  # the loop has taken its handlers with it


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # a faster loop, where there is one
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _show_logs() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("swarmrt")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)


def _stop_at_end_of_input(switch: StopSwitch) -> None:
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 1024):
            loop.remove_reader(descriptor)
            switch.throw("the launching process is gone")

    loop.add_reader(descriptor, readable)


def _first_for_people(group: BaseExceptionGroup) -> SwarmError | None:
    for error in group.exceptions:
        found = _first_for_people(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, SwarmError):
            return found
    return None
