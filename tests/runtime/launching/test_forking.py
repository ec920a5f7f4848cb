"""Processes that are forked from one which has loaded the libraries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from swarmrt.errors import RunError
from swarmrt.runtime.launching.forking import Forked, ForkServer, can_fork
from tests.processes import ROOT

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system has no pidfd")
PATIENCE_S = 60.0

PROGRAM = """
    import os, random, socket, sys, tempfile, time
    from swarmrt.runtime.launching.forking import WORD, serve

    if sys.argv[1] == WORD:
        sys.argv[1:] = serve(socket.socket(fileno=int(sys.argv[2])))
    match sys.argv[1:]:
        case ["exit", code]:
            sys.exit(int(code))
        case ["hang"]:
            print("hanging", flush=True)
            time.sleep(1000)
        case ["until", "input", "ends"]:
            print(sys.stdin.read(), end="")
        case ["tell"]:
            print(os.getsid(0) == os.getpid(), os.environ.get("MORE"), os.environ["HELD"])
            print(random.random())
            print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
        case ["here"]:
            print(os.getcwd(), flush=True)
            print("an error", file=sys.stderr)
        case ["fail"]:
            raise ValueError("as any process does")
"""

Start = Callable[..., Forked]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkServer]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HELD": "from the server"}
    server = ForkServer([sys.executable, str(program)], variables, str(tmp_path))
    yield server
    server.close()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "output").open("w+b") as file:
        yield file


def test_server_whose_launcher_goes_while_it_loads_leaves_quietly(tmp_path: Path) -> None:
    program, errors = tmp_path / "program.py", tmp_path / "errors"
    program.write_text(textwrap.dedent(PROGRAM))
    shell = f'exec "$0" "$@" 2> {errors}'
    command = ["/bin/sh", "-c", shell, sys.executable, str(program)]
    server = ForkServer(command, {**os.environ, "PYTHONPATH": str(ROOT)}, str(tmp_path))
    server.close()
    assert server._process.returncode == 0 and errors.read_text() == ""


def said(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode()


def wait_until_said(output: IO[bytes], text: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while text not in said(output):
        assert time.monotonic() < deadline, said(output)
        time.sleep(0.01)


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_comes_to_the_launcher(server: ForkServer, output: IO[bytes], code: int) -> None:
    process = server.start(["exit", str(code)], {}, output)
    assert process.wait(PATIENCE_S) == code == process.poll()
    process.kill()  # nothing happens any more
    process.stdin.close()


def test_signals_reach_it_and_no_other(server: ForkServer, output: IO[bytes]) -> None:
    one, other = (server.start(["hang"], {}, output) for _ in range(2))
    wait_until_said(output, "hanging\nhanging\n")
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.send_signal(signal.SIGSTOP)
    wait_until_stopped(one.pid)  # of signals that wait together SIGTERM comes first
    one.send_signal(signal.SIGTERM)
    one.kill()
    assert one.wait(PATIENCE_S) == -signal.SIGKILL and other.poll() is None
    other.send_signal(signal.SIGTERM)
    assert other.wait(PATIENCE_S) == -signal.SIGTERM
    one.stdin.close()
    other.stdin.close()


def test_it_is_as_if_started_anew(server: ForkServer, output: IO[bytes]) -> None:
    """A session, variables, chance and descriptors of its own, whatever runs beside it."""
    first = server.start(["until", "input", "ends"], {}, output)
    told = []
    for number in range(2):
        output.truncate(0)
        process = server.start(["tell"], {"MORE": str(number)}, output)
        assert process.wait(PATIENCE_S) == 0
        told.append(said(output).strip("\0").splitlines())
        process.stdin.close()
    assert told[0][0] == "True 0 from the server" and told[1][0] == "True 1 from the server"
    assert told[0][1] != told[1][1]
    assert told[0][2] == told[1][2] == "[0, 1, 2]"
    first.stdin.close()
    assert first.wait(PATIENCE_S) == 0


def test_folder_and_stream_of_errors_may_be_its_own(
    server: ForkServer, output: IO[bytes], tmp_path: Path
) -> None:
    with (tmp_path / "errors").open("w+b") as errors:
        process = server.start(["here"], {}, output, errors, tmp_path)
        assert process.wait(PATIENCE_S) == 0
        assert said(output) == f"{tmp_path}\n" and said(errors) == "an error\n"
        process.stdin.close()


def test_its_input_ends_when_we_close_it(server: ForkServer, output: IO[bytes]) -> None:
    """The input ends at once, not only when processes that were forked later have closed theirs."""
    first, second = (server.start(["until", "input", "ends"], {}, output) for _ in range(2))
    first.stdin.write(b"what a launcher says")
    first.stdin.close()
    assert first.wait(PATIENCE_S) == 0 and said(output) == "what a launcher says"
    assert second.poll() is None
    second.stdin.close()
    assert second.wait(PATIENCE_S) == 0


def test_error_in_it_is_its_own(server: ForkServer, output: IO[bytes]) -> None:
    process = server.start(["fail"], {}, output)
    assert process.wait(PATIENCE_S) == 1 and "as any process does" in said(output)
    process.stdin.close()
    again = server.start(["exit", "0"], {}, output)
    assert again.wait(PATIENCE_S) == 0
    again.stdin.close()


def test_nothing_is_left_behind_when_the_server_is_killed(
    server: ForkServer, output: IO[bytes]
) -> None:
    """Nobody would hear of how its processes end, so they are ended."""
    process = server.start(["hang"], {}, output)
    wait_until_said(output, "hanging")
    server._process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    with pytest.raises(RunError, match="has ended, with exit code -9|could not be forked"):
        server.start(["hang"], {}, output)
    deadline = time.monotonic() + PATIENCE_S
    while command_line(process.pid):  # empty for one that has ended and waits for init to notice
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.stdin.close()


def test_server_that_cannot_load_its_libraries_is_told_of(
    tmp_path: Path, output: IO[bytes]
) -> None:
    server = ForkServer([sys.executable, "-c", "import sys; sys.exit(7)"], os.environ, "")
    with pytest.raises(RunError, match="has ended, with exit code 7"):
        server.start(["hang"], {}, output)
    server.close()
