"""Processes that serve where they help most, as real processes: they come, stand by, and move."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.ids import PeerId, peer_of
from swarmrt.lab.bench.emulation import Speed
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.instructions import ReportMove
from tests.processes import PATIENCE_S, swarmrt
from tests.swarms.test_end_to_end import EXACT, check_logs, difference_to_reference
from tests.swarms.test_spares import follows

pytestmark = pytest.mark.swarm


def settings_of(overrides: dict[str, object]) -> list[str]:
    return [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]


def stages_served(swarm: lab.LocalSwarm) -> list[list[PeerId]]:
    """Return the processes that took part in the newest commit, by stage."""
    return [
        [peer_of(seat) for seat in swarm.members(stage)] for stage in range(swarm.config.num_stages)
    ]


def moves(run_dir: Path) -> list[ReportMove]:
    log = run_dir / "trainer" / "events.jsonl"
    return [i for r in what_happened(log) for i in r.instructions if isinstance(i, ReportMove)]


def test_a_standby_of_another_stage_takes_over_and_a_newcomer_goes_where_it_is_poorest(
    tmp_path: Path,
) -> None:
    """Stage 1 loses its only replica: a replica of stage 0 that holds its state serves on."""
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    overrides: dict[str, object] = {
        "run.steps": 1000,
        "batch.microbatches": 24,
        "rebalancing.standby_share": 1.0,
    }
    with lab.LocalSwarm(
        config, (0, 0), movers=3, run_dir=run_dir, overrides=overrides, threads=1
    ) as swarm:
        swarm.wait(step=2)
        swarm.wait_until(
            lambda: sorted(map(len, stages_served(swarm))) == [1, 2], "all to serve", PATIENCE_S
        )
        served = stages_served(swarm)
        lone = served.index(min(served, key=len))
        only = next(p for p in swarm.movers() if p.peer_id == served[lone][0])
        others = [p for p in swarm.movers() if p is not only]
        logs = [p.folder / f"stage-{lone}" / "events.jsonl" for p in others]
        swarm.wait_until(
            lambda: any(follows(log, swarm.version) for log in logs), "a standby", PATIENCE_S
        )
        check_outlook(swarm)
        killed_at, version = time.monotonic(), swarm.version
        only.kill()
        swarm.wait(step=version + 3)
        print(f"{time.monotonic() - killed_at:.2f} s from the kill to the third commit")
        assert all(stages_served(swarm)) and not swarm.served_by(only)
        newcomer = swarm.spawn(())
        swarm.wait_until(lambda: bool(swarm.served_by(newcomer)), "the newcomer", PATIENCE_S)
        swarm.wait(step=swarm.version + 2)
        swarm.trainer.terminate()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    assert not audit.unchecked
    assert "PAUSED" not in swarm.trainer.output()
    check_logs(run_dir)
    difference = difference_to_reference(
        run_dir, config, tmp_path, *settings_of(overrides), steps=swarm.version
    )
    assert difference < 1e-9


def check_outlook(swarm: lab.LocalSwarm) -> None:
    """A guest with an invitation learns from what the trainer decides, and nobody else does."""
    done = swarmrt("rebalance", swarm.join_line, "--dry-run", "--json")
    assert done.returncode == 0 and "microbatches a second" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert {peer["peer"] for peer in told["peers"]} == {one.peer_id for one in swarm.movers()}
    assert told["idle"] == "" and {peer["serving"] for peer in told["peers"]} == {0, 1}
    assert min(stage["rate"] for stage in told["stages"]) == told["account"]["rate"] > 0
    bare = swarm.join_line.run, "--join", swarm.bootstrap.address
    refused = swarmrt("rebalance", "--run", *bare, "--dry-run")
    assert refused.returncode == 2 and "is your invitation still good?" in refused.stderr
    assert "Traceback" not in refused.stderr + done.stderr


def test_it_moves_to_the_other_stage_when_that_has_become_the_poorer_one(tmp_path: Path) -> None:
    """It joins one of two stages, to which two more come: it loads the other one's state while it
    serves, serves there, and gives up what it has left."""
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    overrides: dict[str, object] = {
        "run.steps": 1000,
        "batch.microbatches": 12,
        "rebalancing.standby_share": 0.0,
    }
    speeds = [[Speed(0.02, 0.04)]] * 2
    with lab.LocalSwarm(
        config, (1, 1), movers=1, run_dir=run_dir, overrides=overrides, threads=1, speeds=speeds
    ) as swarm:
        (mover,) = swarm.movers()
        swarm.wait_until(lambda: bool(swarm.served_by(mover)), "it to serve", PATIENCE_S)
        (rich,) = swarm.served_by(mover)
        for _ in range(2):
            swarm.spawn(rich)
        moved = (1 - rich,)
        swarm.wait_until(lambda: swarm.served_by(mover) == moved, "it to move", PATIENCE_S)
        swarm.wait_until(
            lambda: moves(run_dir)[-1].what == "forgets", "it to give a state up", PATIENCE_S
        )
        swarm.wait(step=swarm.version + 3)
        assert swarm.served_by(mover) == moved
        swarm.trainer.terminate()
        swarm.finish()
    told = [(move.what, move.stage) for move in moves(run_dir)]
    assert told == [("loads", rich), ("loads", 1 - rich), ("serves", 1 - rich), ("forgets", rich)]
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0 and not audit.unchecked, audit.lines()
    check_logs(run_dir)
    settings = settings_of(overrides)
    steps = swarm.version
    assert difference_to_reference(run_dir, config, tmp_path, *settings, steps=steps) < 1e-9
