"""Simulated swarms whose replicas make steps of their own: what they move, and rounds that fail."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.instructions import ClearGradients
from swarmrt.scheduler.recording import Header, Record, of_json, replay
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.engine.process import Process
from swarmrt.sim.swarm.world import TRAINER, World
from tests.observe.test_audit import audited

ASYNC = {"strategy": "async", "local_batch": 2, "most_late": 1.0}
ROUND = (
    "peer.reduce.{}_contribute",
    "peer.reduce.{}_part",
    "peer.prepare.{}_prepared",
    "peer.apply.{}_start",
    "peer.apply.{}_applied",
)
POINTS = [point.format(when) for point in ROUND for when in ("before", "after")]


def test_pipeline_never_drains_and_every_microbatch_counts_once() -> None:
    world = World([2, 3, 2], 3, steps=8, microbatches=12, averaging=ASYNC)
    world.run()
    assert [report.version for report in world.disk.steps] == list(range(1, 9))
    own = [sum(report.local[stage].steps for report in world.disk.steps) for stage in range(3)]
    assert all(number >= 8 * 12 / 3 for number in own), "each is of two or three microbatches"
    for peer in world.peers.values():
        assert len(peer.history) == 8
        assert not peer.computing.accumulated, "all that was moved is in a version"


def test_few_gradients_are_late_where_a_step_is_long_beside_a_round_trip() -> None:
    """By default: with any share that may be late, own steps of two microbatches make most late."""
    far = dict.fromkeys(
        [*map(PeerId, ("s0p0", "s0p1", "s1p0", "s1p1")), TRAINER], Link(latency_s=0.02)
    )

    def late(microbatches: int, **averaging: float) -> float:
        world = World(
            [2, 2],
            5,
            steps=3,
            microbatches=microbatches,
            service_s=(0.02, 0.02),
            eval_every=0,
            sizes=Sizes(1000, 1000, 100),
            links=far,
            averaging={"strategy": "async", "local_batch": 2, **averaging},
        )
        world.run()
        return max(work.late for report in world.disk.steps[1:] for work in report.local)

    assert late(240) <= 0.1
    assert late(60, most_late=1.0) > 0.5


def test_synchronous_steps_come_first() -> None:
    world = World([2, 2], 4, steps=6, microbatches=6, averaging={**ASYNC, "sync_steps": 3})
    world.run()
    own = [bool(report.local) for report in world.disk.steps]
    assert own == [False, False, False, True, True, True]


def test_void_work_takes_the_weights_back_to_the_anchor() -> None:
    """A peer that stands still is fenced after it has moved: none of that is left when it is let in
    again."""
    world = World([2, 2], 5, steps=30, microbatches=12, averaging={**ASYNC, "local_batch": 1})
    world.run_until(version=2)
    victim = world.peers[PeerId("s0p0")]
    world.pause(victim.settings.me, 20.0)
    world.run()
    assert len(victim.history) == 30, "it is in again"
    records = victim.process.history
    assert any(isinstance(i, ClearGradients) for r in records for i in r.instructions)
    assert world.disk.recoveries["fenced"]


@pytest.mark.parametrize("action", ["kill", "pause"])
@pytest.mark.parametrize("point", POINTS)
def test_member_of_a_round_that_fails_is_as_before_or_holds_the_next_anchor(
    point: str, action: str
) -> None:
    """The fifth to pass the point fails there. Then, as ever, all replicas of a stage that hold a
    version hold the same one; and each one's own weights have nothing twice, and nothing void."""
    world = World([3, 2], 7, steps=8, microbatches=9, averaging=ASYNC)
    passages: Counter[str] = Counter()

    def fail(process: Process, passed: str) -> None:
        passages[passed] += 1
        if passed == point and passages[passed] == 5:
            (world.kill if action == "kill" else lambda peer: world.pause(peer, 20.0))(process.me)
            if not world.live(world.peers[process.me].settings.stage):
                world.spawn(world.peers[process.me].settings.stage)

    def anchors_agree() -> None:
        for stage in range(world.num_stages):
            held = [peer.history for peer in world.peers.values() if peer.settings.stage == stage]
            longest = max(held, key=len, default=())
            assert all(history == longest[: len(history)] for history in held)
        for peer in world.peers.values():
            peer.computing.local.check(peer.history, peer.computing.accumulated)

    world.at_failpoint, world.at_event = fail, anchors_agree
    world.run()
    assert passages[point] >= 5, "the point was not passed"


def test_logs_replay() -> None:
    world = World([2, 2], 6, steps=5, microbatches=6, averaging=ASYNC)
    world.run_until(version=2)
    world.kill(PeerId("s1p1"))
    world.run()
    for log in world.log().values():
        header, *records = _read(log)
        assert isinstance(header, Header)
        told = [record for record in records if isinstance(record, Record)]
        assert all(again == record.instructions for record, again in replay(header, told))


def _read(log: list[dict[str, object]]) -> Iterator[object]:
    yield from (of_json(json.dumps(entry)) for entry in log)


def test_rounds_come_by_a_clock_and_steps_have_what_is_computed_meanwhile(tmp_path: Path) -> None:
    """A step's number is in the log and the report, and an audit goes by it. A new trainer begins
    with few again."""
    world = World([2, 2], 8, steps=24, microbatches=400, averaging={**ASYNC, "every_s": 12.0})
    world.run_until(version=14)
    sizes = [report.microbatches for report in world.disk.steps]
    assert sizes[:2] == [2, 2] and max(sizes) < 400 and sizes[-1] >= 8
    seconds = [report.seconds for report in world.disk.steps]
    assert all(abs(took - 12.0) < 4.0 for took in seconds[-4:]), seconds
    world.kill_trainer()
    world.resume_trainer()
    world.run()
    assert [report.version for report in world.disk.steps][-1] == 24
    result = audited(json.loads(json.dumps(world.log())), tmp_path)
    assert result.passed, result.violations
    assert result.microbatches == sum(
        {report.version: report.microbatches for report in world.disk.steps}.values()
    )
