"""Whole swarms of the production cores in virtual time."""

from __future__ import annotations

import json

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.scheduler.recording import replay
from swarmrt.sim.world import World

SHAPES = ([1], [1, 1, 1], [2, 3, 2], [1, 4], [3, 1, 1, 2])


@pytest.mark.parametrize("replicas", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_every_microbatch_counts_once_and_replicas_agree(replicas: list[int], seed: int) -> None:
    """Promises P1 and P2, undisturbed: `World.run` checks both."""
    world = World(replicas, seed, steps=5, queue_s=0.3 if seed % 2 else 5.0)
    world.run()
    assert [report.version for report in world.trainer.steps] == [1, 2, 3, 4, 5]
    assert [report.version for report in world.trainer.evaluations] == [2, 4, 5]
    assert sorted(world.trainer.checkpoints) == [2, 4, 5]
    assert all(len(peer.history) == 5 for peer in world.peers.values())


def test_all_replicas_are_used() -> None:
    world = World([2, 3, 2], seed=3, steps=4, microbatches=12, service_s=(0.2, 0.2))
    world.run()
    for peer in world.peers.values():
        sums = [entry for entry in peer.process.log[1:] if entry["event"]["is"] == "BackwardDone"]
        assert len(sums) >= 8, f"{peer.settings.me} ran {len(sums)} backwards of 48"


def test_newcomer_gets_the_state_and_takes_part() -> None:
    world = World([2, 2], seed=1, steps=8)
    world.run_until(version=2)
    newcomer = world.peers[world.spawn(stage=1)]
    world.run()
    assert len(newcomer.history) == 8
    assert any(entry["event"]["is"] == "BackwardDone" for entry in newcomer.process.log[1:])


def test_same_seed_same_run_to_the_byte() -> None:
    def log() -> str:
        world = World([2, 3, 2], seed=11)
        world.run()
        return json.dumps(world.log())

    assert log() == log()


def test_recorded_run_replays_to_the_same_instructions() -> None:
    world = World([2, 3, 2], seed=5)
    world.run()
    for records in json.loads(json.dumps(world.log())).values():
        for entry, again in replay(records):
            assert again == entry["instructions"], entry["event"]


def test_replay_sees_a_core_that_decides_otherwise() -> None:
    world = World([1, 1], seed=5)
    world.run()
    records = json.loads(json.dumps(world.log()[PeerId("s1p0")]))
    records[0]["settings"]["num_stages"] = 3  # the last stage now thinks it is in the middle
    records[0]["settings"]["stage"] = 1
    assert any(again != entry["instructions"] for entry, again in replay(records))


def test_stop_commits_the_step_and_saves_it() -> None:
    from swarmrt.scheduler.events import StopRequested

    world = World([2, 2], seed=2, steps=50)
    world.run_until(version=3)
    world.trainer.process.feed(StopRequested("enough"))
    world.run()
    last = world.trainer.steps[-1].version
    assert last <= 5 and last in world.trainer.checkpoints
    assert world.trainer.stopped is not None and "was stopped" in world.trainer.stopped.reason


def test_lost_replica_ends_the_run_with_a_reason() -> None:
    from swarmrt.scheduler.events import PeerLost

    world = World([2, 2], seed=2, steps=50)
    world.run_until(version=3)
    lost = next(iter(world.peers))
    world.trainer.process.feed(PeerLost(lost, "connection reset"))
    with pytest.raises(RunError, match=f"stage 0 lost {lost} during step"):
        world.run()
