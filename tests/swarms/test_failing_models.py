"""Errors of a model in a swarm of real processes: they end no process, and no run too early."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import ComputeFailed, Event
from swarmrt.scheduler.instructions import ReportStep
from tests.processes import swarmrt
from tests.swarms.test_end_to_end import difference_to_reference, trained_difference

pytestmark = pytest.mark.swarm

FAILING = """
[run]
name = "failing"
steps = 20
[model]
kind = "tests.swarms.failing_models:build"
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


def events(run_dir: Path, kind: type[Event]) -> int:
    """How many of them the peers have recorded."""
    logs = run_dir.glob("peers/**/events.jsonl")
    return sum(isinstance(record.event, kind) for log in logs for record in what_happened(log))


@pytest.mark.parametrize("replicas", ["1,1,1", "2,2,1"])
def test_what_cannot_be_computed_is_computed_again_elsewhere(tmp_path: Path, replicas: str) -> None:
    """Three forwards and three backwards raise an error, with a part of a gradient added."""
    config = failing(tmp_path, times=3)
    assert trained_difference(config, tmp_path, replicas, trial=False) < 1e-9
    assert events(tmp_path / "run", ComputeFailed) == 6


@pytest.mark.parametrize("replicas", ["1,1,1", "1,2,1"])
def test_a_model_that_always_fails_ends_the_run_with_its_reason(
    tmp_path: Path, replicas: str
) -> None:
    config, run_dir = failing(tmp_path, times=100_000), tmp_path / "run"
    done = swarmrt("local", config, "--replicas", replicas, "--run-dir", run_dir, "--no-trial")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot be computed at stage 1" in line]
    assert "forward failed: RuntimeError: the forward cannot take it" in line


SPOILED = """
[run]
name = "spoiled"
steps = 20
[model]
kind = "tests.swarms.spoiled_models:build"
sequence = 16
dtype = "float64"
options = { one_in = 40 }
[stages]
layers = [1, 1]
[batch]
microbatch = 2
microbatches = 6
[optimizer]
not_finite = "NOT_FINITE"
[evaluation]
every_steps = 10
microbatches = 2
"""


def spoiled(tmp_path: Path, not_finite: str) -> Path:
    path = tmp_path / "spoiled.toml"
    path.write_text(SPOILED.replace("NOT_FINITE", not_finite))
    return path


def test_steps_whose_data_have_no_finite_gradient_are_skipped_as_by_the_reference(
    tmp_path: Path,
) -> None:
    config, run_dir = spoiled(tmp_path, "skip"), tmp_path / "run"
    done = swarmrt("local", config, "--replicas", "2,1", "--run-dir", run_dir)
    assert done.returncode == 0 and "SKIPPED step" in done.stdout + done.stderr
    assert difference_to_reference(run_dir, config, tmp_path) < 1e-9
    audit = swarmrt("audit", run_dir)
    assert audit.returncode == 0, audit.stdout
    log = what_happened(tmp_path / "run" / "trainer" / "events.jsonl")
    reports = [i for record in log for i in record.instructions if isinstance(i, ReportStep)]
    skipped = [report.version for report in reports if report.skipped]
    assert 0 < len(skipped) < 10, skipped
    assert [report.version for report in reports] == list(range(1, 21))


def test_run_stops_at_a_gradient_that_is_not_finite_and_names_who_made_it(tmp_path: Path) -> None:
    config, run_dir = spoiled(tmp_path, "stop"), tmp_path / "run"
    done = swarmrt("local", config, "--replicas", "2,1", "--run-dir", run_dir)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot be computed at stage 0" in line]
    assert "its gradient is not finite" in line and "microbatch" in line
