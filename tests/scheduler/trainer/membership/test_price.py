"""Fencing voids what a peer has accumulated: it comes when waiting has cost more than that."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Apply
from swarmrt.scheduler.trainer.closing.sync.commit import Commit
from swarmrt.scheduler.trainer.membership.price import redo_s
from tests.scheduler.trainer_core import Swarm, member_of


def swarm_of_long_steps() -> Swarm:
    """Steps of ten seconds, half of whose work is done when a peer goes silent."""
    swarm = Swarm((2, 2), microbatches=4, latency_s=2.0)
    swarm.run_to(8)
    while swarm.core.run.books.num_owned(PeerId("s1p0")) < 2:
        swarm.run(0.1)
    return swarm


def silent_for(swarm: Swarm, name: str, limit_s: float = 60.0) -> float:
    """Return after how long a peer is fenced that says nothing from now on."""
    del swarm.peers[PeerId(name)]
    began_at = swarm.now
    while name not in swarm.fenced() and swarm.now < began_at + limit_s:
        swarm.run(0.1)
    return swarm.now - began_at


def test_peer_with_much_of_the_step_is_waited_for_as_long_as_that_takes() -> None:
    swarm = swarm_of_long_steps()
    price_s = redo_s(swarm.core.run, member_of(swarm, "s1p0"))
    assert price_s > 4.5, "the story needs one that is dearer than the silence of a deadline"
    assert price_s <= silent_for(swarm, "s1p0") < price_s + 3


def test_peer_with_nothing_is_fenced_at_twice_its_deadline() -> None:
    swarm = Swarm((2, 2), microbatches=2, latency_s=0.02)
    swarm.run_to(60)
    deadline_s = member_of(swarm, "s1p0").health.deadline_s
    assert silent_for(swarm, "s1p0") < 2 * deadline_s + 0.6


def test_beacon_that_waited_while_the_trainer_slept_is_no_late_one() -> None:
    """It is read before anybody looks who is late."""
    swarm = Swarm((2, 2))
    swarm.run_to(20)
    for _ in range(5):
        swarm.sleep(30.0)
        swarm.run(2.0)
    assert member_of(swarm, "s1p0").health.beacons.mean_s < 0.6


def test_update_that_nobody_of_a_stage_has_made_is_nobodys_fault() -> None:
    """None of them waits for another one. Where one has made it, the others are late."""
    apply = Apply(1, 0, 1, 1.0, False)
    stages = {PeerId("a"): 0, PeerId("b"): 0, PeerId("c"): 1, PeerId("d"): 1}
    commit = Commit(1, 2, stages, apply, ("", ""), frozenset(), 1.0, 10, 1.0, False)
    assert commit.suspects() == []
    commit.applied[PeerId("c")] = "digest"
    assert commit.suspects() == ["d"]
