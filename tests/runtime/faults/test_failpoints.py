"""A real trainer is killed inside its durable acts, one after the other, and goes on each time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.runtime.faults.failpoints import parse_failpoints
from tests.processes import our_processes, swarmrt
from tests.swarms.test_end_to_end import EXACT, largest_difference

DURABLE = (
    "trainer.checkpoint.before_rename",
    "trainer.epoch.before_write",
    "trainer.epoch.after_write",
    "trainer.checkpoint.after_rename",
)


def test_a_failpoint_that_never_fired_says_so() -> None:
    points = parse_failpoints(
        "trainer.epoch.before_write=drop@1,trainer.epoch.after_write=drop@3,"
        "trainer.checkpoint.before_rename=kill"
    )
    points.at("trainer.epoch.before_write")
    points.at("trainer.epoch.after_write")
    assert points.never_fired() == [
        "the failpoint trainer.epoch.after_write=drop@3 never fired: its point was passed 1 time",
        "the failpoint trainer.checkpoint.before_rename=kill@1 never fired: its point was passed 0 "
        "times",
    ]


@pytest.mark.swarm
def test_trainer_killed_inside_durable_acts(tmp_path: Path) -> None:
    """Checkpoints are whole or absent, and no microbatch is lost or repeated."""
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT)
    with lab.LocalSwarm(config, replicas=[1, 2, 1], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=2)
        swarm.trainer.kill()
        for point in DURABLE:
            swarm.trainer.resume(failpoints=f"{point}=kill")
            assert swarm.trainer.wait(120), f"{point} was not passed"
            assert swarm.trainer.exit_code == -signal.SIGKILL, swarm.trainer.last_lines()
        swarm.trainer.resume()
        swarm.finish(120)
        report = swarm.audit()
    assert report.passed and report.steps == 20, report.violations
    assert our_processes(str(run_dir)) == []
    ours, alone = tmp_path / "swarm.safetensors", tmp_path / "alone.safetensors"
    assert swarmrt("export", run_dir, "--out", ours).returncode == 0
    assert swarmrt("reference", config, "--steps", 20, "--out", alone).returncode == 0
    assert largest_difference(ours, alone) < 1e-9
