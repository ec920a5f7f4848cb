"""Spares follow their stage, take no work, and are let in when a replica of it is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Applied,
    Beacon,
    Drain,
    Finish,
    Forward,
    Leaving,
    Prepare,
    Prepared,
    Ready,
    Recover,
)
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import (
    Instruction,
    ReportHandOver,
    ReportPause,
    ReportPeer,
    ReportRollback,
    ReportWaiting,
    Send,
)
from swarmrt.scheduler.timing.times import FILL_IN_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from tests.scheduler.trainer_core import Peer, Swarm, bends, member_of, silent_about
from tests.trust.test_trainer import gaps

SPARE, OTHER = "s1p8", "s1p9"
LONE = "s1p0"


def with_spare(*replicas: int, version: int = 7, **settings: Any) -> Swarm:
    """It has come after a few steps, and has the newest version by now."""
    swarm = Swarm(replicas, latency_s=0.05, **settings)
    swarm.run_to(3)
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run_to(version)
    return swarm


def lose(swarm: Swarm, name: str) -> list[Instruction]:
    """Let it be killed: its link breaks."""
    del swarm.peers[PeerId(name)]
    return swarm.feed(PeerLost(PeerId(name), "killed"))


def shown(swarm: Swarm, name: str) -> str:
    """Return the state that people see of a peer."""
    told = [r for _, r in swarm.told if isinstance(r, ReportPeer) and r.peer == name]
    return told[-1].state


def nothing_was_lost(swarm: Swarm) -> bool:
    return not any(isinstance(told, ReportPause | ReportRollback) for _, told in swarm.told)


def run_into(swarm: Swarm, phase: RunPhase) -> None:
    """Stop as soon as the run is in that phase, with nothing to be applied any more."""
    while swarm.core.run.phase is not phase or swarm.core.run.commit is not None:
        swarm.run(0.01)


def test_it_follows_every_step_and_takes_part_in_none() -> None:
    swarm = with_spare(1, 2, 1, version=20)
    assert not swarm.is_ready(SPARE) and shown(swarm, SPARE) == "spare"
    assert swarm.peers[PeerId(SPARE)].version >= 19
    assert all(SPARE not in dict(step.digests[1]) for step in swarm.steps())
    told = [i for _, i in swarm.told if isinstance(i, Send) and i.to == SPARE]
    assert not any(isinstance(send.message, Forward | Recover) for send in told)
    listened = [send.message for send in told if isinstance(send.message, Prepare)]
    assert len(listened) >= 10 and all(SPARE in prepare.listeners for prepare in listened)


def test_nobody_waits_for_one_that_is_late() -> None:
    swarm = with_spare(1, 1, 1)
    usual_s = max(gaps(swarm)[2:])
    swarm.peers[PeerId(SPARE)].habit = silent_about(Applied, Prepared)
    swarm.peers[PeerId(SPARE)].version -= 10
    swarm.run(5.0)
    assert max(gaps(swarm)) < 1.1 * usual_s


@pytest.mark.parametrize("replicas", [(1, 1, 1), (1, 2, 1), (2, 1)])
def test_it_is_let_in_by_the_event_that_tells_of_a_loss(replicas: tuple[int, ...]) -> None:
    swarm = with_spare(*replicas)
    run_into(swarm, RunPhase.TRAINING)
    told = lose(swarm, LONE)
    assert swarm.is_ready(SPARE) and shown(swarm, SPARE) == "ready"
    assert any(isinstance(i, Send) and i.to == SPARE for i in told), "what was lost is its now"
    at, version = swarm.now, swarm.version
    swarm.run_to(version + 3)
    assert nothing_was_lost(swarm) and swarm.now - at < 3.0
    assert SPARE in dict(swarm.steps()[-1].digests[1])


def test_where_a_round_is_under_way_it_is_void_and_repeated_with_the_spare() -> None:
    swarm = with_spare(1, 1, 1)
    run_into(swarm, RunPhase.PREPARING)
    lose(swarm, LONE)
    assert swarm.is_ready(SPARE)
    swarm.run_to(swarm.version + 2)
    assert nothing_was_lost(swarm)


def test_where_a_version_is_being_applied_it_comes_once_all_have_it() -> None:
    swarm = with_spare(1, 1, 1)
    swarm.peers[PeerId(SPARE)].habit = silent_about()
    swarm.run_to(swarm.version + 1)
    assert swarm.core.run.commit is not None
    lose(swarm, LONE)
    assert not swarm.is_ready(SPARE)
    swarm.run_to(swarm.version + 2)
    assert swarm.is_ready(SPARE) and nothing_was_lost(swarm)


def test_one_comes_for_each_that_is_lost_and_the_other_stays_a_spare() -> None:
    swarm = with_spare(1, 2, 1)
    swarm.join(OTHER, 1, is_spare=True)
    swarm.run_to(12)
    run_into(swarm, RunPhase.TRAINING)
    lose(swarm, LONE)
    swarm.run_to(15)
    assert sorted(swarm.is_ready(name) for name in (SPARE, OTHER)) == [False, True]
    run_into(swarm, RunPhase.TRAINING)
    lose(swarm, "s1p1")
    swarm.run_to(18)
    assert swarm.is_ready(SPARE) and swarm.is_ready(OTHER) and nothing_was_lost(swarm)


def test_where_nobody_is_lost_a_stage_of_fewer_than_before_it_came_is_as_it_was() -> None:
    swarm = Swarm((1, 2, 1), latency_s=0.05)
    swarm.run_to(3)
    lose(swarm, LONE)
    swarm.run_to(5)
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run_to(12)
    assert not swarm.is_ready(SPARE)
    swarm.join(LONE, 1)
    swarm.run_to(18)
    assert swarm.is_ready(LONE) and not swarm.is_ready(SPARE)
    lose(swarm, LONE)
    swarm.run_to(20)
    assert swarm.is_ready(SPARE)


def test_one_that_dies_is_missed_by_nobody() -> None:
    swarm = with_spare(1, 1, 1)
    run_into(swarm, RunPhase.PREPARING)
    lose(swarm, SPARE)
    assert swarm.core.run.phase is RunPhase.PREPARING
    swarm.run_to(swarm.version + 5)
    assert nothing_was_lost(swarm) and shown(swarm, SPARE) == "lost"


def test_one_whose_link_is_too_slow_is_told_so_as_a_newcomer_is() -> None:
    swarm = with_spare(1, 1, 1)
    swarm.peers[PeerId(SPARE)].gradient_s = 30.0
    swarm.run(2.0)
    (told,) = swarm.peers[PeerId(SPARE)].left_out
    assert told.what == "link" and told.takes_s == 30.0
    assert swarm.core.run.phase is not RunPhase.CLOSING


def test_it_is_used_again_like_any_other_once_it_was_let_in() -> None:
    swarm = with_spare(1, 1, 1)
    run_into(swarm, RunPhase.TRAINING)
    lose(swarm, LONE)
    swarm.run_to(10)
    swarm.join(LONE, 1)
    swarm.run_to(20)
    assert swarm.is_ready(LONE) and swarm.is_ready(SPARE)
    swarm.peers[PeerId(SPARE)].term += 1  # it has begun anew
    swarm.run_to(30)
    assert swarm.is_ready(SPARE), "two have served since it came"


# ---------------------------------------------------------------------- leaving


def test_a_lone_replica_that_wants_to_leave_may_within_a_beacon() -> None:
    swarm = with_spare(1, 1, 1)
    run_into(swarm, RunPhase.TRAINING)
    lone = member_of(swarm, LONE)
    told = swarm.say(LONE, Leaving(1, lone.term, False))
    assert swarm.is_ready(SPARE)
    assert not any(isinstance(i, ReportHandOver) for i in told)
    told = swarm.say(LONE, Leaving(1, lone.term, False))
    assert Send(PeerId(LONE), Drain(1)) in told
    assert nothing_was_lost(swarm)


def test_a_spare_may_leave_at_once() -> None:
    swarm = with_spare(1, 1, 1)
    run_into(swarm, RunPhase.PREPARING)
    told = swarm.say(SPARE, Leaving(1, member_of(swarm, SPARE).term, False))
    assert any(isinstance(i, Send) and isinstance(i.message, Finish) for i in told)
    assert member_of(swarm, SPARE) is None and swarm.core.run.phase is RunPhase.PREPARING


# ---------------------------------------------------------------------- the beginning


def test_it_fills_in_once_the_run_could_begin_with_it_and_nobody_else_has_come() -> None:
    swarm = Swarm((1, 0), latency_s=0.05, needed=(1, 1))
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run(FILL_IN_S - 1.0)
    assert swarm.core.run.phase is RunPhase.WAITING and not swarm.is_ready(SPARE)
    waiting = [told for _, told in swarm.told if isinstance(told, ReportWaiting)][-1]
    assert waiting.ready == (1, 0) and waiting.loading == (0, 0)
    swarm.run(3.0)
    assert swarm.is_ready(SPARE) and swarm.version > 0


def test_it_waits_where_others_are_missing_too() -> None:
    swarm = Swarm((0, 0), latency_s=0.05, needed=(1, 1))
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run(3 * FILL_IN_S)
    assert not swarm.is_ready(SPARE)
    swarm.join(LONE, 1)
    swarm.join("s0p0", 0)
    swarm.run_to(3)
    assert not swarm.is_ready(SPARE) and swarm.is_ready(LONE)


def test_it_does_not_count_among_those_that_the_run_waits_for() -> None:
    swarm = Swarm((1, 1), latency_s=0.05, needed=(1, 2))
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run(FILL_IN_S / 2)
    assert swarm.core.run.phase is RunPhase.WAITING
    swarm.join("s1p1", 1)
    swarm.run_to(2)
    assert not swarm.is_ready(SPARE)


def test_other_weights_are_found_before_it_is_needed() -> None:
    swarm = Swarm((1, 1), latency_s=0.05, by_owners=(1,))
    swarm.run_to(3)
    swarm.join(SPARE, 1, is_spare=True)
    swarm.run_to(7)
    swarm.peers[PeerId(SPARE)].habit = bends(Applied, digest="other")
    swarm.run_to(9)
    assert "not those of the other" in swarm.reasons(SPARE)[0] and not swarm.fenced().get(LONE)


def test_one_that_lacks_a_lost_version_is_given_up_although_it_wants_to_leave() -> None:
    """Found by a soak: the run waited for a spare that had not got the last sums of the only
    replica, and was asked to leave."""
    swarm = with_spare(1, 1, 1, checkpoint_every=1)
    run_into(swarm, RunPhase.TRAINING)
    spare = swarm.peers.pop(PeerId(SPARE))  # what it is told is lost from now on
    swarm.run_to(swarm.version + 1)
    lone = swarm.peers.pop(PeerId(LONE))
    swarm.run(0.2)  # what it has said has come by then
    swarm.feed(PeerLost(lone.name, "killed"))
    swarm.join("s1p5", 1)
    spare.state = "leaving"
    for _ in range(30):
        swarm.say(SPARE, spare.beacon())
        swarm.run(0.5)
    assert any(isinstance(told, ReportRollback) for _, told in swarm.told)


def test_a_replica_is_believed_before_a_spare_that_came_first() -> None:
    swarm = Swarm((1, 0), latency_s=0.05, needed=(1, 1))
    others = bends(Ready, digest="other"), bends(Beacon, digest="other")
    swarm.join(SPARE, 1, is_spare=True, habit=lambda m: others[isinstance(m, Beacon)](m))
    swarm.run(2.0)
    swarm.join(LONE, 1)
    swarm.run_to(2)
    assert swarm.is_ready(LONE) and set(swarm.fenced()) == {SPARE}


# ---------------------------------------------------------------------- a new incarnation


def beacon_at(swarm: Swarm, name: str, version: int) -> None:
    """Let one that was there before say what it holds."""
    peer = swarm.peers[PeerId(name)]
    peer.version, peer.digest, peer.applied = version, f"v{version}", version
    swarm.say(name, peer.beacon())


def test_a_resumed_run_does_not_go_back_because_a_spare_was_heard_first() -> None:
    swarm = Swarm((0, 0), latency_s=0.05, needed=(1, 1), resume=True, epoch=2)
    for name, stage, is_spare in (("s0p0", 0, False), (SPARE, 1, True)):
        swarm.peers[PeerId(name)] = peer = Peer(PeerId(name), stage, swarm)
        peer.epoch, peer.is_spare = 2, is_spare
        beacon_at(swarm, name, 8 - is_spare)
    swarm.run(1.0)
    assert swarm.core.run.phase is RunPhase.HAILING
    swarm.peers[PeerId(LONE)] = lone = Peer(PeerId(LONE), 1, swarm)
    lone.epoch = 2
    beacon_at(swarm, LONE, 8)
    assert swarm.version == 8


def test_a_resumed_run_goes_on_from_what_spares_hold_where_nobody_else_is() -> None:
    swarm = Swarm((0, 0), latency_s=0.05, needed=(1, 1), resume=True, epoch=2)
    for name, stage, is_spare in (("s0p0", 0, False), (SPARE, 1, True)):
        swarm.peers[PeerId(name)] = peer = Peer(PeerId(name), stage, swarm)
        peer.epoch, peer.is_spare = 2, is_spare
        beacon_at(swarm, name, 8)
        swarm.begin_beacons(peer)
    swarm.run(FILL_IN_S + 6.0)
    assert swarm.version > 8 and swarm.is_ready(SPARE)


# ---------------------------------------------------------------------- any losses


def test_one_that_is_left_out_counts_as_lost() -> None:
    swarm = with_spare(1, 2, 1)
    run_into(swarm, RunPhase.TRAINING)
    swarm.core.run.charge(PeerId(LONE), "rounds are long with it", "slow")
    swarm.run_to(swarm.version + 2)
    assert swarm.peers[PeerId(LONE)].left_out and swarm.is_ready(SPARE)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 2),
    st.lists(st.tuples(st.floats(0.0, 1.5), st.integers(0, 3)), max_size=4),
)
def test_a_stage_has_as_many_as_it_had_while_there_are_spares(
    replicas: int, spares: int, losses: list[tuple[float, int]]
) -> None:
    """A stage with spares loses nothing before all of it are dead, whenever in a step that is."""
    swarm = Swarm((1, replicas), latency_s=0.05)
    for number in range(spares):
        swarm.join(f"s1p{8 + number}", 1, is_spare=True)
    swarm.run_to(3)
    for seconds, pick in losses[: replicas + spares - 1]:
        swarm.run(seconds)
        there = sorted(peer.name for peer in swarm.peers.values() if peer.stage == 1)
        lose(swarm, there[pick % len(there)])
        swarm.run(2.5)
        ready = [name for name in there if swarm.is_ready(name)]
        assert len(ready) == min(replicas, len(there) - 1)
    swarm.run_to(swarm.version + 2)
    assert nothing_was_lost(swarm)
