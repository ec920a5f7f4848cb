"""Processes with several seats: stages that share a process and its device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.ids import peer_of, stage_of
from swarmrt.messages import Accumulated
from swarmrt.observe.log import received
from tests.swarms.test_end_to_end import check_logs, difference_to_reference
from tests.swarms.test_end_to_end import exact as exact

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
