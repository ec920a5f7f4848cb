"""The owner of a machine pauses a peer there and lets it go on, as real processes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from swarmrt import lab
from swarmrt.lab.swarm.parts import Peer
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.instructions import FreeDevice
from tests.processes import PATIENCE_S, swarmrt
from tests.swarms.test_end_to_end import EXACT, difference_to_reference

pytestmark = pytest.mark.swarm


def ask(act: str, peer: Peer) -> dict[str, Any]:
    """Return what a peer says to its owner."""
    done = swarmrt(act, str(peer.pid), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    [told] = json.loads(done.stdout)["peers"]
    assert told["pid"] == peer.pid and not told["error"]
    return dict(told)


def test_others_go_on_without_a_paused_replica_and_it_serves_again(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    overrides = {"run.steps": 1000, "batch.microbatches": 24}
    with lab.LocalSwarm(config, (2, 2), run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        swarm.wait(step=3)
        one, other = swarm.peers(1)
        told = ask("pause", one)
        assert told["state"] == "paused" and told["alone"] == []
        swarm.wait(step=swarm.version + 3)
        assert swarm.members(1) == (other.seat,)
        assert ask("resume", one)["state"] == "serving"
        swarm.wait_for_member(one)
        swarm.wait(step=swarm.version + 2)
        assert ask("stop", one)["state"] == "leaving"
        swarm.wait_until(lambda: not one.is_alive, "the drained one to end", PATIENCE_S)
        assert one.exit_code == 0
        swarm.trainer.terminate()
        swarm.finish()
    freed = [
        record
        for record in what_happened(one.folder / "events.jsonl")
        if any(isinstance(instruction, FreeDevice) for instruction in record.instructions)
    ]
    assert len(freed) == 1
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    assert f"stage 1: {one.seat} paused" in swarm.trainer.output()
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    difference = difference_to_reference(run_dir, config, tmp_path, *settings, steps=swarm.version)
    assert difference < 1e-9


def test_outside_of_its_hours_a_peer_is_paused_until_its_owner_says_otherwise(
    tmp_path: Path,
) -> None:
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 1"))
    overrides = {"run.steps": 1000, "batch.microbatches": 24}
    with lab.LocalSwarm(config, (1,), run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        hour = time.localtime().tm_hour
        late = swarm.spawn(0, hours=f"{(hour + 3) % 24}-{(hour + 5) % 24}")
        paused = f"stage 0: {late.seat} paused"
        swarm.wait_until(lambda: paused in swarm.trainer.output(), paused, PATIENCE_S)
        assert "it is paused; its hours are" in late.output()
        assert ask("resume", late)["state"] == "serving"
        swarm.wait_for_member(late)
        swarm.trainer.terminate()
        swarm.finish()
    assert swarm.audit().passed


def test_a_lone_replica_says_that_the_run_waits_for_its_owner(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    with lab.LocalSwarm(config, (1, 1), run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=3)
        [lone] = swarm.peers(1)
        assert ask("pause", lone)["alone"] == [1]
        version = swarm.version
        paused = "its owner has paused it"
        swarm.wait_until(lambda: paused in swarm.trainer.output(), paused, PATIENCE_S)
        assert swarm.version <= version + 1
        ask("resume", lone)
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    assert difference_to_reference(run_dir, config, tmp_path) < 1e-9
