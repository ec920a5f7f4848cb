"""Running `swarmrt` as its users do: real processes, real sockets."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from swarmrt.runtime.launching.forking import Forked, ForkServer, can_fork

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "swarmrt"]
PATIENCE_S = 300.0  # a test that needs longer hangs


_home = tempfile.TemporaryDirectory(prefix="swarmrt-tests-")  # gone with the tests


def environment() -> dict[str, str]:
    """Ours, without settings of swarmrt, with one thread for torch, and a home of the tests' own.

    There are the owner key, and what is kept of runs that were joined.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMRT_")}
    home = Path(_home.name)
    folders = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}
    return {**kept, **folders, "OMP_NUM_THREADS": "1"}


class Command:
    """A `swarmrt …` that runs, with what it says as text.

    It is forked from a process that has loaded the libraries, where the system can. One that is
    `fresh` begins with an interpreter of its own.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        fresh: bool = False,
    ) -> None:
        """Start it. With `output`, what it says goes there."""
        self.args = list(map(str, arguments))
        self.stdout, out = _pipe()
        self.stderr, err = _pipe()
        streams = (output or out, output or err)
        variables = {**environment(), **(env or {})}
        self._process: Forked | subprocess.Popen[bytes]
        with out, err:
            if can_fork() and not fresh:
                self._process = _server().start(self.args, variables, *streams, cwd)
                self._process.stdin.close()
            else:
                self._process = subprocess.Popen(
                    [*COMMAND, *self.args],
                    stdin=subprocess.DEVNULL,
                    stdout=streams[0],
                    stderr=streams[1],
                    cwd=cwd,
                    env=variables,
                    start_new_session=True,
                )
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float = PATIENCE_S) -> int:
        return self._process.wait(timeout)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float = PATIENCE_S) -> tuple[str, str]:
        """Return the rest of what it says, on both streams. It is killed when that takes longer."""
        with patience(self, timeout), ThreadPoolExecutor(1) as other:
            errors = other.submit(self.stderr.read)
            said = self.stdout.read(), errors.result()
            self.wait()
        return said


@contextmanager
def patience(command: Command, seconds: float = PATIENCE_S) -> Iterator[None]:
    """Kill it when the block takes longer."""
    timer = threading.Timer(seconds, command.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _pipe() -> tuple[IO[str], IO[bytes]]:
    read, write = os.pipe()
    return os.fdopen(read), os.fdopen(write, "wb")


@functools.cache
def _server() -> ForkServer:
    """The process from which commands are forked, until the tests have ended."""
    server = ForkServer(COMMAND, environment(), "tests")
    atexit.register(server.close)
    return server


def swarmrt(
    *arguments: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    with running(*arguments, cwd=cwd, env=env, fresh=fresh) as command:
        said, errors = command.communicate(timeout_s)
    return subprocess.CompletedProcess(command.args, command.wait(), said, errors)


def local(*arguments: object) -> dict[str, Any]:
    """`swarmrt local … --json`: its result."""
    done = swarmrt("local", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@contextmanager
def running(
    *arguments: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    fresh: bool = False,
) -> Iterator[Command]:
    """A process that is stopped with SIGTERM at the end, if it is still there.

    A test that has failed kills it: a stage's last replica would stay until another one comes.
    """
    command = Command(*arguments, cwd=cwd, env=env, output=output, fresh=fresh)
    try:
        yield command
    except BaseException:
        command.kill()
        raise
    finally:
        if command.poll() is None:
            command.terminate()
        command.communicate()
        command.stdout.close()
        command.stderr.close()


def wait_until_said(process: Command, text: str) -> None:
    """A line with this text on standard error. Fails when the process ends without it."""
    with patience(process):
        assert any(text in line for line in process.stderr), f"it never said {text!r}"


def our_processes(marker: str) -> list[str]:
    """Command lines of live processes that mention the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if marker in line:
                found.append(line)
    return found


def daemon_with(word: str) -> int:
    """The process id of the libp2p daemon with this in its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"p2pd") and any(word.encode() in each for each in words):
                return int(entry.name)
    raise AssertionError(f"no daemon with {word}")


def our_sockets(folder: Path) -> list[str]:
    """What daemons have left in a folder for temporary files."""
    return [path.name for path in folder.glob("swarmrt-*")]
