"""Output that nobody reads ends nothing."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import COMMAND, PATIENCE_S, ROOT, environment

MANY_LINES = """
import sys
from swarmrt.cli.process.unheard import go_on_unheard
go_on_unheard()
for number in range(100_000):
    print("line", number, flush=number % 10 == 0)
sys.stderr.write("came to the end")
"""


def test_a_pipe_without_a_reader_ends_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MANY_LINES],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == "came to the end"
        assert process.wait(PATIENCE_S) == 0


def test_socket_without_a_reader_ends_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", MANY_LINES],
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": str(ROOT)},
        )
        assert ours.recv(1)
        ours.close()  # with lines in it that nobody has read
        assert process.communicate(timeout=PATIENCE_S)[1] == b"came to the end"
        assert process.returncode == 0


CLOSED = """
import os, sys
from swarmrt.cli.process.unheard import go_on_unheard
go_on_unheard()
print("unheard", file=sys.stdout)
print("unheard", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write(f"{file.fileno() > 2} {sys.stderr.isatty()}")
    os.system("echo unheard; echo unheard >&2; cat")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_at_the_start_are_no_other_files(
    tmp_path: Path, closed: str
) -> None:
    words = shlex.join([sys.executable, "-c", CLOSED, str(tmp_path / "said")])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} {closed}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text() == "True False"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_under_the_output_ends_nothing() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", MANY_LINES],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "came to the end")


TINY = """
[run]
steps = 30
[model]
layers = 2
width = 32
heads = 2
kv_heads = 1
sequence = 16
[stages]
layers = [1, 1]
[batch]
microbatch = 1
microbatches = 2
"""


@pytest.mark.swarm
def test_a_run_whose_lines_nobody_reads_comes_to_its_end(tmp_path: Path) -> None:
    path, run_dir = tmp_path / "run.toml", tmp_path / "run"
    path.write_text(TINY)
    words = shlex.join([*COMMAND, "local", str(path), "--run-dir", str(run_dir)])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{{ {words}; echo $? >&2; }} | head -1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        env=environment(),
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "0\n"
    assert list((run_dir / "checkpoints").iterdir())
