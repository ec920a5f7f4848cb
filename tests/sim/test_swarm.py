"""Whole swarms of the production cores in virtual time."""

from __future__ import annotations

import json
import random
from functools import partial

import msgspec
import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.recording import Header, Record, of_json, replay
from swarmrt.sim.swarm.world import World

SHAPES = ([1], [1, 1, 1], [2, 3, 2], [1, 4], [3, 1, 1, 2])


@pytest.mark.parametrize("replicas", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("staleness", [0, 1])
def test_every_microbatch_counts_once_and_replicas_agree(
    replicas: list[int], seed: int, staleness: int
) -> None:
    """Promises P1 and P2, undisturbed: `World.run` checks both."""
    queue_s = 0.3 if seed % 2 else 5.0
    world = World(replicas, seed, steps=5, queue_s=queue_s, staleness=staleness)
    world.run()
    assert [report.version for report in world.disk.steps] == [1, 2, 3, 4, 5]
    assert [report.version for report in world.disk.evaluations] == [2, 4, 5]
    assert sorted(world.disk.checkpoints) == [2, 4, 5]
    assert all(len(peer.history) == 5 for peer in world.peers.values())


@pytest.mark.parametrize("replicas", SHAPES, ids=str)
@pytest.mark.parametrize("fresh_steps", [1, 3, 9])
def test_the_first_steps_may_be_fresh_and_later_ones_overlap(
    replicas: list[int], fresh_steps: int
) -> None:
    world = World(replicas, 3, steps=7, staleness=1, fresh_steps=fresh_steps)
    world.run()
    assert [report.version for report in world.disk.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [report.version for report in world.disk.evaluations] == [2, 4, 6, 7]
    assert all(len(peer.history) == 7 for peer in world.peers.values())


def test_all_replicas_are_used() -> None:
    world = World([2, 3, 2], seed=3, steps=4, microbatches=12, service_s=(0.2, 0.2))
    world.run()
    for peer in world.peers.values():
        sums = [entry for entry in peer.process.log()[1:] if entry["event"]["is"] == "BackwardDone"]
        assert len(sums) >= 8, f"{peer.settings.me} ran {len(sums)} backwards of 48"


def test_pipeline_does_not_drain_between_steps_when_one_may_be_stale() -> None:
    """With a staleness of 1 the next step runs while this one is reduced and applied."""

    def seconds_a_step(staleness: int) -> float:
        world = World([2, 2, 2], 3, steps=12, microbatches=16, eval_every=0, checkpoint_every=0,
                      service_s=(0.1, 0.1), staleness=staleness)  # fmt: skip
        world.run()
        steps = world.disk.steps[4:]
        return sum(report.seconds for report in steps) / len(steps)

    ideal_s = 16 * 0.3 / 2  # a forward of 0.1 s and a backward of 0.2 s, by two replicas
    least_s = 0.99 * ideal_s  # the first step of those that count may have begun early
    assert least_s <= seconds_a_step(staleness=1) < 1.15 * ideal_s < seconds_a_step(staleness=0)


def test_newcomer_gets_the_state_and_takes_part() -> None:
    world = World([2, 2], seed=1, steps=8)
    world.run_until(version=2)
    newcomer = world.peers[world.spawn(stage=1)]
    world.run()
    assert len(newcomer.history) == 8
    assert any(entry["event"]["is"] == "BackwardDone" for entry in newcomer.process.log()[1:])


def test_only_the_stage_that_a_newcomer_comes_to_copies_its_state() -> None:
    world = World([2, 2], seed=1, steps=8, checkpoint_every=0)
    world.run_until(version=2)
    world.spawn(stage=1)
    world.run_until(version=7)
    copies = [
        len(world.peers[peer].state.snapshots) for stage in (0, 1) for peer in world.live(stage)
    ]
    assert copies[:2] == [0, 0] and all(copies[2:])


def test_same_seed_same_run_to_the_byte() -> None:
    def log() -> str:
        world = World([2, 3, 2], seed=11)
        world.run()
        return json.dumps(world.log())

    assert log() == log()


def read(log: list[dict[str, object]]) -> tuple[Header, list[Record]]:
    header, *records = map(of_json, map(json.dumps, log))
    assert isinstance(header, Header)
    return header, [record for record in records if isinstance(record, Record)]


def test_recorded_run_replays_to_the_same_instructions() -> None:
    world = World([2, 3, 2], seed=5)
    world.run()
    for log in world.log().values():
        for record, again in replay(*read(log)):
            assert again == record.instructions, record.event


def test_replay_sees_a_core_that_decides_otherwise() -> None:
    world = World([1, 1], seed=5)
    world.run()
    header, records = read(world.log()["s1p0"])
    settings = msgspec.structs.replace(header.settings, num_stages=3, stage=1)
    in_the_middle = Header(settings)  # what is the last stage
    assert any(again != record.instructions for record, again in replay(in_the_middle, records))


def test_stop_commits_the_step_and_saves_it() -> None:
    from swarmrt.scheduler.events import StopRequested

    world = World([2, 2], seed=2, steps=50)
    world.run_until(version=3)
    world.trainer.process.feed(StopRequested("enough"))
    world.run()
    last = world.disk.steps[-1].version
    assert last <= 5 and last in world.disk.checkpoints
    assert world.trainer.stopped is not None and "was stopped" in world.trainer.stopped.reason


@pytest.mark.parametrize("seed", range(40))
def test_killed_replicas_cost_no_gradient(seed: int) -> None:
    """P1 and P2 whoever dies whenever, while each stage keeps a replica: `World.run` checks."""
    rng = random.Random(seed)
    world = World([3, 3, 2], seed, steps=12, microbatches=5)
    world.run_until(version=1)
    victims = ["s0p0", "s0p1", "s1p0", "s1p2", "s2p1"]
    for victim in rng.sample(victims, k=rng.randint(1, 5)):
        world.clock.after(rng.uniform(0, 12), partial(world.kill, PeerId(victim)))
    for stage in rng.sample(range(3), k=rng.randint(0, 2)):
        world.spawn(stage, after_s=rng.uniform(0, 12))
    world.run()
    assert [report.version for report in world.disk.steps] == list(range(1, 13))
    assert 12 in world.disk.checkpoints


@pytest.mark.parametrize("seed", range(20))
def test_drained_replicas_cost_nothing_at_all(seed: int) -> None:
    rng = random.Random(seed)
    world = World([3, 3, 2], seed, steps=10)
    world.run_until(version=1)
    leavers = rng.sample(["s0p0", "s0p1", "s1p0", "s1p2", "s2p1"], k=3)
    for leaver in leavers:
        world.clock.after(rng.uniform(0, 8), partial(world.drain, PeerId(leaver)))
    world.run()
    assert not world.disk.recoveries["reattempted"] and not world.disk.rollbacks
    for leaver in leavers:
        stopped = world.peers[PeerId(leaver)].stopped
        assert stopped is not None and not stopped.error


def test_killed_replica_costs_the_recompute_of_what_it_owned() -> None:
    """Promise P3: no step is done again, no other stage computes anything again."""
    world = World([2, 2, 2], seed=2, steps=6, microbatches=8)
    world.run_until(version=3)
    world.clock.after(1.5, lambda: world.kill(PeerId("s1p0")))
    world.run()
    assert world.disk.recoveries["recovered"] > 0 and not world.disk.rollbacks
    assert world.disk.epoch == 1


def test_last_replica_of_a_stage_pauses_the_run_until_there_is_another() -> None:
    world = World([2, 1], seed=2, steps=8, checkpoint_every=2)
    world.run_until(version=5)
    world.kill(PeerId("s1p0"))
    world.spawn(stage=1, after_s=100.0)
    world.run()
    assert [pause.stage for pause in world.disk.pauses] == [1]
    [rollback] = world.disk.rollbacks
    assert rollback.version == 4 and world.disk.epoch == 2
    assert [report.version for report in world.disk.steps][-4:] == [5, 6, 7, 8]


def test_last_replica_hands_over_to_its_replacement() -> None:
    world = World([2, 1], seed=2, steps=8)
    world.run_until(version=5)
    world.drain(PeerId("s1p0"))
    newcomer = world.peers[world.spawn(stage=1, after_s=3.0)]
    world.run()
    assert not world.disk.rollbacks and len(newcomer.history) == 8


def test_paused_peer_is_found_out_and_serves_again() -> None:
    world = World([2, 2], seed=3, steps=60, service_s=(0.05, 0.1))
    world.run_until(version=3)
    paused_at = world.clock.now
    world.pause(PeerId("s1p0"), 30.0)
    world.run_until(version=6)
    assert world.clock.now < paused_at + 30, "the others go on without it"
    assert world.disk.recoveries["fenced"] > 0
    world.run()
    assert len(world.peers[PeerId("s1p0")].history) == 60


def test_killed_trainer_goes_on_from_what_the_peers_hold() -> None:
    world = World([2, 2], seed=4, steps=8, checkpoint_every=0)
    world.run_until(version=5)
    world.kill_trainer()
    world.clock.after(3.0, world.resume_trainer)
    world.run()
    again = [report.version for report in world.disk.steps]
    assert again == sorted(set(again)), "no step was done twice"


def test_nothing_piles_up() -> None:
    world = World([2, 2], seed=5, steps=6, retained_frames=4)
    world.run()
    assert all(peer.kept() <= 12 for peer in world.peers.values())


def test_resumed_trainer_waits_for_the_state_though_a_newcomer_answers_first() -> None:
    world = World([2, 2], seed=4, steps=8, checkpoint_every=0)
    world.run_until(version=5)
    world.kill_trainer()
    world.spawn(stage=0)
    world.clock.after(3.0, world.resume_trainer)
    world.run()
    assert not world.disk.rollbacks
