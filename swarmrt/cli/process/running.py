"""Running an async command: event loop, signals, logs and exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from swarmrt.cli.process.signals import leave_quietly_on_signals
from swarmrt.errors import SwarmError, UsageError, is_disk_full
from swarmrt.foreign import for_terminal, printable
from swarmrt.runtime.limits.open_files import allow_many_files
from swarmrt.runtime.process.loop_watch import watching_loop
from swarmrt.runtime.process.own_output import VARIABLE as OUTPUT
from swarmrt.runtime.process.own_output import OwnOutput
from swarmrt.runtime.process.stopping import StopSwitch

if TYPE_CHECKING:
    from swarmrt.runtime.faults.faults import LinkFaults  # it brings torch with it

T = TypeVar("T")


MAX_COMMAND_BYTES = 4096
MAX_LOGGED = 1000  # characters of a message


def run(
    command: Callable[[StopSwitch], Awaitable[T]],
    *,
    with_parent: bool = False,
    faults: LinkFaults | None = None,
) -> T | None:
    """Run to the end, or drained by Ctrl-C or SIGTERM (then None).

    With `with_parent`, the end of standard input stops it too, so that nothing outlives a
    launcher that was killed; what comes there before are commands for `faults`, one a line. The
    file that the launcher has it print to is kept short.
    An error for people is raised alone, without its task group.
    """
    show_logs()
    allow_many_files()
    gc.freeze()  # what is imported by now stays: to look through it stops everything for 0.2 s

    async def main() -> T | None:
        task = asyncio.current_task()
        assert task is not None
        switch = StopSwitch(task)
        switch.on_signals()
        if with_parent:
            _follow_input(switch, faults)
        try:
            with watching_loop(), _short_output(with_parent):
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


@contextmanager
def _short_output(with_parent: bool) -> Iterator[None]:
    """Keep the file short that the launcher has this process print to, if there is one."""
    path = os.environ.get(OUTPUT) if with_parent else None
    output = OwnOutput(Path(path)) if path else None
    try:
        yield
    finally:
        if output is not None:
            output.close()


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # a faster loop, where there is one
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def show_logs() -> None:
    """Show our logs, and those of libraries that speak of other processes."""
    handler = LogHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    for name in ("swarmrt", "hivemind", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("swarmrt").setLevel(logging.WARNING)


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler that leaves out what a full disk does not take."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not is_disk_full(sys.exception()):
            super().handleError(record)


class PlainFormatter(logging.Formatter):
    """A formatter of one line for each message, whoever's words are in it; a traceback has its own
    lines."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record), MAX_LOGGED)


def _follow_input(switch: StopSwitch, faults: LinkFaults | None) -> None:
    """Obey the launching process's commands; stop when it is gone."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    lines = Lines()

    def readable() -> None:
        data = os.read(descriptor, 1024)
        if not data:
            loop.remove_reader(descriptor)
            switch.throw("the launching process is gone")
        for line in lines.feed(data):
            _obey(line, faults)

    loop.add_reader(descriptor, readable)


class Lines:
    """A maker of whole lines from pieces of bytes. A line that is too long comes in parts."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_COMMAND_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines if line.strip()]


def _obey(line: str, faults: LinkFaults | None) -> None:
    try:
        if faults is None:
            raise UsageError(f"not a command: {line:.200}; this process takes none")
        faults.obey(line)
    except UsageError as error:
        print(f"swarmrt: ignored on standard input: {error}", file=sys.stderr, flush=True)


def _first_for_people(group: BaseExceptionGroup) -> SwarmError | None:
    for error in group.exceptions:
        found = _first_for_people(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, SwarmError):
            return found
    return None
