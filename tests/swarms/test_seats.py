"""Processes with several seats: stages that share a process and its device."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.ids import peer_of, seat_of, stage_of
from swarmrt.lab.swarm.parts import Peer
from swarmrt.messages import Accumulated
from swarmrt.observe.log import received, what_happened
from swarmrt.scheduler.instructions import RunForward
from tests.processes import PATIENCE_S
from tests.swarms.test_end_to_end import check_logs, difference_to_reference
from tests.swarms.test_end_to_end import exact as exact
from tests.swarms.test_spares import follows

pytestmark = pytest.mark.swarm

FOUR = {"stages.count": 4, "run.steps": 12}
SETTINGS = [word for key, value in FOUR.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("processes", [((0, 2), (1, 3)), ((0, 1), (2, 3))])
def test_four_stages_in_two_processes_train_exactly(
    exact: Path, tmp_path: Path, processes: tuple[tuple[int, ...], ...]
) -> None:
    """Seats of a process talk to each other within it where they are neighbours."""
    run_dir = tmp_path / "run"
    swarm = lab.LocalSwarm(exact, run_dir=run_dir, overrides=FOUR, threads=1, processes=processes)
    with swarm:
        swarm.finish()
        seats = [swarm.members(stage) for stage in range(4)]
    assert [[stage_of(seat) for seat in stage] for stage in seats] == [[0], [1], [2], [3]]
    assert len({peer_of(seat) for [seat] in seats}) == 2
    audit = swarm.audit()
    assert audit.passed and audit.steps == 12, audit.violations
    assert not audit.unchecked
    check_logs(run_dir)
    assert difference_to_reference(run_dir, exact, tmp_path, *SETTINGS, steps=12) < 1e-9


def test_process_with_two_seats_is_killed_and_others_take_both_over(
    exact: Path, tmp_path: Path
) -> None:
    """Both of its seats are lost at once; each stage has another replica."""
    run_dir = tmp_path / "run"
    processes = [(0, 2), (1,), (0,), (2,)]
    overrides = {"run.steps": 12, "batch.microbatches": 12}
    swarm = lab.LocalSwarm(
        exact, run_dir=run_dir, overrides=overrides, threads=1, processes=processes
    )
    with swarm:
        swarm.wait(step=3)
        both = swarm.peers(0)[0]
        assert both.stages == (0, 2)
        both.kill()
        swarm.finish()
    receipts = Counter(
        stage_of(sender)
        for _, sender, _ in received(run_dir / "trainer" / "events.jsonl", Accumulated)
        if peer_of(sender) == both.peer_id
    )
    assert receipts[0] and receipts[2] and not receipts[1], receipts
    audit = swarm.audit()
    assert audit.passed and audit.steps == 12 and not audit.rollbacks, audit.violations
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    assert difference_to_reference(run_dir, exact, tmp_path, *settings, steps=12) < 1e-9


def test_spares_take_both_seats_of_a_killed_process_over_without_a_checkpoint(
    exact: Path, tmp_path: Path
) -> None:
    """Nobody else serves its stages: both seats of another process listen, and go on."""
    run_dir = tmp_path / "run"
    overrides = {**FOUR, "run.steps": 1000, "batch.microbatches": 24}
    processes = [(0, 2), (1, 3)]
    swarm = lab.LocalSwarm(
        exact, run_dir=run_dir, overrides=overrides, threads=1, processes=processes
    )
    with swarm:
        spare = swarm.spawn((0, 2), is_spare=True)
        swarm.wait(step=1)
        swarm.wait_until(lambda: _are_spares(swarm, spare), "two spares", PATIENCE_S)
        swarm.wait(step=swarm.version + 2)
        logs = [spare.folder / f"stage-{stage}" / "events.jsonl" for stage in (0, 2)]
        swarm.wait_until(
            lambda: all(follows(log, swarm.version) for log in logs), "both to follow", PATIENCE_S
        )
        only, killed_at = swarm.peers(0)[0], time.monotonic()
        only.kill()
        swarm.wait(step=swarm.version + 3)
        members = swarm.members(0) + swarm.members(2)
        swarm.trainer.terminate()
        swarm.finish()
    assert {peer_of(member) for member in members} == {spare.peer_id}
    for log in logs:
        at = _first_forward_at(log)
        print(f"{at - killed_at:.3f} s from the kill to the first microbatch of {log.parent.name}")
    audit = swarm.audit()
    assert audit.passed and not audit.rollbacks, audit.violations
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    assert difference_to_reference(run_dir, exact, tmp_path, *settings, steps=swarm.version) < 1e-9


def _are_spares(swarm: lab.LocalSwarm, peer: Peer) -> bool:
    """Return whether all of its seats follow their stages."""
    seats = [(stage, seat_of(peer.peer_id, stage)) for stage in peer.stages]
    output = swarm.trainer.output()
    return all(f"stage {stage}: {seat} spare" in output for stage, seat in seats)


def _first_forward_at(log: Path) -> float:
    """Return when a seat first computed anything, by the machine's monotonic clock."""
    return next(
        record.now
        for record in what_happened(log)
        if any(isinstance(instruction, RunForward) for instruction in record.instructions)
    )
