"""A spare takes the place of its stage's only replica, as real processes: nothing is done again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.lab.swarm.parts import Peer
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import Stepped
from swarmrt.scheduler.instructions import RunForward
from tests.processes import PATIENCE_S
from tests.swarms.test_end_to_end import EXACT, difference_to_reference

pytestmark = pytest.mark.swarm


def follows(log: Path, version: int) -> bool:
    """Return whether a spare has made this version, by its log. Until then the death of its stage's
    only replica loses the version: nobody waits for a spare."""
    made = (record.event for record in what_happened(log) if isinstance(record.event, Stepped))
    return any(event.version >= version for event in made)


def first_forward_at(spare: Peer) -> float:
    """Return when it first computed anything, by the machine's monotonic clock."""
    return next(
        record.now
        for record in what_happened(spare.folder / "events.jsonl")
        if any(isinstance(instruction, RunForward) for instruction in record.instructions)
    )


def test_spare_takes_over_when_the_only_replica_is_killed(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    overrides = {"run.steps": 1000, "batch.microbatches": 24}
    with lab.LocalSwarm(
        config, (1, 1), spares=(0, 1), run_dir=run_dir, overrides=overrides, threads=1
    ) as swarm:
        only, spare = swarm.peers(1)
        assert spare.is_spare
        shown = f"stage 1: {spare.seat} spare"
        swarm.wait_until(lambda: shown in swarm.trainer.output(), shown, PATIENCE_S)
        swarm.wait(step=swarm.version + 3)
        assert swarm.members(1) == (only.seat,)
        log = spare.folder / "events.jsonl"
        swarm.wait_until(lambda: follows(log, swarm.version), "the spare to follow", PATIENCE_S)
        killed_at = time.monotonic()
        only.kill()
        swarm.wait_for_member(spare)
        swarm.wait(step=swarm.version + 3)
        swarm.trainer.terminate()
        swarm.finish()
    print(f"{first_forward_at(spare) - killed_at:.3f} s from the kill to its first microbatch")
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    assert "PAUSED" not in swarm.trainer.output()
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    difference = difference_to_reference(run_dir, config, tmp_path, *settings, steps=swarm.version)
    assert difference < 1e-9
