"""Running `swarmrt` as its users do: real processes, real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def swarmrt(
    *arguments: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd or ROOT,
        env={**environment(), **(env or {})},
        check=False,
    )


def local(*arguments: object) -> dict[str, Any]:
    """`swarmrt local … --json`: its result."""
    done = swarmrt("local", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@contextmanager
def running(*arguments: object, session: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that is stopped with SIGTERM at the end, if it is still there."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=session,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def wait_until_said(process: subprocess.Popen[str], text: str) -> None:
    """A line with this text on standard error. Fails when the process ends without it."""
    assert process.stderr is not None
    patience = threading.Timer(PATIENCE_S, process.terminate)
    patience.start()
    try:
        assert any(text in line for line in process.stderr), f"it never said {text!r}"
    finally:
        patience.cancel()


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


def our_sockets(folder: Path) -> list[str]:
    """What daemons have left in a folder for temporary files."""
    return [path.name for path in folder.glob("swarmrt-*")]
