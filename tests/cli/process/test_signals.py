"""Signals before anything runs end a process with exit code 0, wherever they hit it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import COMMAND, PATIENCE_S, ROOT, environment, patience, running

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLACES = {
    "set_name": """
        class Named:
            def __set_name__(self, owner, name):
                hit()
        class Owner:
            named = Named()
        """,
    "weak_callback": """
        import weakref
        class Thing:
            pass
        thing = Thing()
        reference = weakref.ref(thing, lambda reference: hit())
        del thing
        """,
    "finalizer": """
        class Thing:
            def __del__(self):
                hit()
        Thing()
        """,
    "bare_except": """
        try:
            hit()
        except:
            pass
        """,
    "lock": """
        lock = hit.lock
        lock.acquire()
        try:
            lock.release()
            hit()
        finally:
            lock.release()
        """,
}
START = """
import signal, sys, threading
from swarmrt.cli.process.signals import leave_quietly_on_signals
def hit():
    signal.raise_signal(int(sys.argv[1]))
hit.lock = threading.Lock()
import builtins
builtins.hit = hit
leave_quietly_on_signals()
"""


def python(code: str, number: signal.Signals, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code that may call `hit()`, which sends it the signal."""
    return subprocess.run(
        [sys.executable, "-c", START + code, str(int(number))],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{folder}"},
        check=False,
    )


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_in_an_import_is_not_lost(
    tmp_path: Path, place: str, number: signal.Signals
) -> None:
    code = "\n".join(line[8:] for line in PLACES[place].splitlines())
    (tmp_path / "imported.py").write_text(code)
    done = python("import imported\nprint('it went on')", number, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_elsewhere_unwinds_what_is_open(tmp_path: Path, number: signal.Signals) -> None:
    code = "try:\n    hit()\nfinally:\n    print('closed')\nprint('it went on')"
    done = python(code, number, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


@pytest.mark.parametrize(
    ("number", "module"), [(signal.SIGINT, "numpy.linalg"), (signal.SIGTERM, "torch._tensor")]
)
def test_a_command_that_imports_torch_leaves_quietly(number: signal.Signals, module: str) -> None:
    command = [COMMAND[0], "-X", "importtime", *COMMAND[1:], "serve", "nowhere", "--stage", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert any(line.rstrip().endswith(f" {module}") for line in process.stderr)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in said and "ignored" not in said
        assert process.stdout.read() == ""


DRAINING = """
import asyncio
from swarmrt.runtime.process.stopping import StopSwitch
async def main():
    switch, stop = StopSwitch(asyncio.current_task()), asyncio.Event()
    switch.on_signals()
    with switch.calls(lambda reason: (print(reason), stop.set())):
        hit()
        await asyncio.wait_for(stop.wait(), 5)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_to_drain(tmp_path: Path, number: signal.Signals) -> None:
    done = python(DRAINING, number, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{number.name} received\n", "")


WATCHING = """
from swarmrt.cli.process.signals import Stops
with Stops() as stops:
    for _ in range(3):
        hit()
        print(stops.asked, flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_are_counted_for_whoever_passes_them_on_and_the_third_leaves(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = python(WATCHING, number, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n", "")


def test_under_nohup_a_closed_terminal_stops_nothing(tmp_path: Path) -> None:
    code = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nleave_quietly_on_signals()\n"
        "hit()\nprint('it went on')"
    )
    # what the tests' own process ignores, its children do
    assert python(code, signal.SIGHUP, tmp_path).stdout == "it went on\n"


TRAINS_LONG = """
[run]
steps = 100000
[model]
layers = 1
width = 16
heads = 2
sequence = 16
[stages]
count = 1
[batch]
microbatches = 1
"""


def test_a_reference_that_is_stopped_says_that_nothing_is_written(tmp_path: Path) -> None:
    config, out = tmp_path / "run.toml", tmp_path / "weights.safetensors"
    config.write_text(TRAINS_LONG)
    with running("reference", config, "--out", out) as process, patience(process):
        assert process.stdout.readline().startswith("step     1/")
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 1
    assert said == "swarmrt: stopped by SIGTERM: no weights are written; begin again\n"
    assert list(tmp_path.iterdir()) == [config]


def test_a_benchmark_that_is_stopped_fails_and_leaves_nothing(tmp_path: Path) -> None:
    long = ("bench", "trainer", "--steps", "1000000")
    with running(*long, env={"TMPDIR": str(tmp_path)}, fresh=True) as process, patience(process):
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        said, errors = process.communicate()
    assert process.returncode == 1 and not said
    assert errors == "swarmrt: stopped by SIGTERM: nothing is measured to the end; begin again\n"
    assert not list(tmp_path.iterdir())
