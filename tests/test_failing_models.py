"""Errors of a model in a swarm of real processes: they end no process, and no run too early."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt.observe.audit import read_log
from tests.processes import swarmrt
from tests.test_end_to_end import trained_difference

pytestmark = pytest.mark.swarm

FAILING = """
[run]
name = "failing"
steps = 20
[model]
kind = "tests.failing_models:build"
sequence = 16
dtype = "float64"
options = { folder = "FOLDER", times = TIMES }
[stages]
layers = [1, 1, 1]
[batch]
microbatch = 2
microbatches = 6
[evaluation]
every_steps = 10
microbatches = 2
"""


def failing(tmp_path: Path, times: int) -> Path:
    folder = tmp_path / "fuses"
    folder.mkdir()
    path = tmp_path / "failing.toml"
    path.write_text(FAILING.replace("FOLDER", str(folder)).replace("TIMES", str(times)))
    return path


def events(run_dir: Path, name: str) -> int:
    """How many of them the peers have recorded."""
    logs = run_dir.glob("peers/*/events.jsonl")
    return sum(entry.get("event", {}).get("is") == name for log in logs for entry in read_log(log))


@pytest.mark.parametrize("replicas", ["1,1,1", "2,2,1"])
def test_what_cannot_be_computed_is_computed_again_elsewhere(tmp_path: Path, replicas: str) -> None:
    """Three forwards and three backwards raise an error, with a part of a gradient added."""
    config = failing(tmp_path, times=3)
    assert trained_difference(config, tmp_path, replicas) < 1e-9
    assert events(tmp_path / "run", "ComputeFailed") == 6


@pytest.mark.parametrize("replicas", ["1,1,1", "1,2,1"])
def test_a_model_that_always_fails_ends_the_run_with_its_reason(
    tmp_path: Path, replicas: str
) -> None:
    config, run_dir = failing(tmp_path, times=100_000), tmp_path / "run"
    done = swarmrt("local", config, "--replicas", replicas, "--run-dir", run_dir)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot be computed at stage 1" in line]
    assert "forward failed: RuntimeError: the forward cannot take it" in line
