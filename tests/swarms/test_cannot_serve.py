"""Errors of peers in swarms of real processes reach whoever can act: the run's owner as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt import lab
from tests.cli.keys.test_access import Home, join_line, wait_for
from tests.cli.keys.test_access import config as config
from tests.processes import PATIENCE_S, swarmrt

pytestmark = pytest.mark.swarm

DEADLY = """
[run]
name = "deadly"
steps = 100000
[data]
source = "text.txt"
[model]
kind = "tests.swarms.deadly_models:build"
sequence = 16
options = { folder = "FOLDER", how = "HOW" }
[stages]
layers = [1, 1]
[batch]
microbatch = 2
microbatches = 6
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 1
"""


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A configuration whose text has one character that is deadly once there is a file `armed`."""
    line = "The quick brown fox jumps over the lazy dog, and again.\n"
    (tmp_path / "text.txt").write_text(line * 30 + "“" + line * 30)
    path = tmp_path / "deadly.toml"
    path.write_text(DEADLY.replace("FOLDER", str(tmp_path)).replace("HOW", "kill"))
    return path


def test_who_cannot_serve_tells_its_owner_and_the_trainer(config: Path, tmp_path: Path) -> None:
    """Too little memory, no such stage, no such island: the run says for whom it waits, and why."""
    owner, alice, bob = (Home(tmp_path / who) for who in ("owner", "alice", "bob"))
    said = tmp_path / "train.log"
    with owner.running("train", config, "--run-dir", tmp_path / "run", log=said) as trainer:
        line = join_line(said)
        small = alice.run("serve", line, "--stage", 1, "--memory", "1KB")
        assert small.returncode == 2 and "stage 1 needs" in small.stderr
        shown = wait_for(said, "cannot serve it: stage 1 needs")
        assert "on cpu" in shown and "Traceback" not in shown
        wait_for(said, "could not serve it: stage 1 needs")
        wrong = bob.run("serve", line, "--stage", 7)
        assert wrong.returncode == 2 and "there is no stage 7" in wrong.stderr
        apart = bob.run("serve", line, "--stage", 1, "--island", 2)
        assert apart.returncode == 2 and "has no islands" in apart.stderr
        with (
            alice.running("serve", line, "--stage", 0, log=tmp_path / "0.log"),
            bob.running("serve", line, "--stage", 1, log=tmp_path / "1.log"),
        ):
            wait_for(said, "1/100000")
            trainer.terminate()  # the others are told, and need not wait for somebody to take over
            trainer.wait(PATIENCE_S)


def test_volunteers_that_a_microbatch_kills_in_turn_end_the_run(
    deadly: Path, tmp_path: Path
) -> None:
    with lab.LocalSwarm(deadly, [1, 1], run_dir=tmp_path / "run", threads=1) as swarm:
        swarm.wait(step=2)
        (tmp_path / "armed").touch()
        killed = 0
        while swarm.trainer.is_alive and killed < 8:
            first = swarm.peers(stage=0)[0]
            swarm.wait_until(
                lambda first=first: not (first.is_alive and swarm.trainer.is_alive),  # type: ignore[misc]
                "a peer or the run to end",
                60,
            )
            killed += 1
            if swarm.trainer.is_alive:
                swarm.spawn(stage=0)
        swarm.wait_until(lambda: not swarm.trainer.is_alive, "the run to end", 60)
        assert swarm.trainer.exit_code == 1
        output = swarm.trainer.output()
    (why,) = [line for line in output.splitlines() if "lost one after the other" in line]
    assert "of stage 0" in why and "tokens " in why and "of the data" in why


def test_local_says_what_has_killed_a_process_and_waits_for_nobody(
    deadly: Path, tmp_path: Path
) -> None:
    (tmp_path / "armed").touch()
    run_dir = tmp_path / "run"
    done = swarmrt("local", deadly, "--replicas", "2,1", "--run-dir", run_dir, "--no-trial")
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "killed by SIGKILL" in line]
    assert any(line.startswith("swarmrt: stage-0-0: it was killed") for line in lines)
    assert any(line.startswith("swarmrt: stage-0-") and " failed: it was" in line for line in lines)


def test_model_that_leaves_python_is_a_computation_that_fails(deadly: Path, tmp_path: Path) -> None:
    (tmp_path / "armed").touch()
    deadly.write_text(deadly.read_text().replace('"kill"', '"exit"'))
    run_dir = tmp_path / "run"
    done = swarmrt("local", deadly, "--replicas", "2,1", "--run-dir", run_dir, "--no-trial")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (why,) = [line for line in done.stderr.splitlines() if "cannot be computed at stage 0" in line]
    assert "forward failed: SystemExit: this character is too much" in why
    assert "is tokens " in why and "of the data" in why
