"""How often peers are told to beacon, and what is believed and taken of what they beacon."""

from __future__ import annotations

from typing import Any

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, SayEvery
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.trainer.membership.joining.timekeeping import AT_ONCE, IN_AN_INTERVAL
from tests.scheduler.trainer_core import Swarm, bends, member_of


def told(swarm: Swarm, name: str) -> list[float]:
    """Return what a peer was told, one after the other."""
    words = (one for _, one in swarm.told if isinstance(one, Send))
    return [
        word.message.every_s
        for word in words
        if isinstance(word.message, SayEvery) and word.to == name
    ]


def swarm_of(most_per_s: float, **settings: Any) -> Swarm:
    return Swarm((3, 3), most_beacons_per_s=most_per_s, **settings)


def test_a_small_swarm_is_told_nothing() -> None:
    swarm = swarm_of(12.0)
    swarm.run(30.0)
    assert swarm.version and not any(told(swarm, name) for name in swarm.peers)


def test_each_is_told_until_it_says_that_it_obeys() -> None:
    """A word may be lost, so the next beacon is answered again; but once in a second at the
    most."""
    swarm = swarm_of(1.0)
    swarm.run(10.0)
    assert 8 <= len(told(swarm, "s0p0")) <= 11 and told(swarm, "s0p0")[-1] == 6.0
    swarm.peers[PeerId("s0p0")].habit = bends(Beacon, every_s=6.0)
    swarm.run(1.0)
    words = len(told(swarm, "s0p0"))
    swarm.run(10.0)
    assert len(told(swarm, "s0p0")) == words and len(told(swarm, "s0p1")) > 16


def test_who_takes_its_time_by_its_own_word_is_not_believed() -> None:
    """It is silent for ten seconds at a time, and was told nothing of the kind."""
    swarm = swarm_of(200.0)
    swarm.run(5.0)
    swarm.peers[PeerId("s1p1")].habit = bends(Beacon, every_s=60.0)
    swarm.run(5.0)
    assert member_of(swarm, "s1p1").health.every_s == BEACON_S
    del swarm.peers[PeerId("s1p1")]
    swarm.run(15.0)
    assert swarm.fenced() == {"s1p1": 1}


def test_who_keeps_an_interval_of_an_earlier_trainer_is_told_one() -> None:
    swarm = swarm_of(1.0)
    swarm.peers[PeerId("s1p1")].habit = bends(Beacon, every_s=6.0)
    swarm.run(5.0)
    assert told(swarm, "s1p1")[-1] == 6.0 and member_of(swarm, "s1p1").health.every_s == 6.0


def test_who_beacons_on_and_on_costs_next_to_nothing_and_harms_nobody() -> None:
    swarm = swarm_of(200.0)
    swarm.run(5.0)
    peer, heard = swarm.peers[PeerId("s0p0")], 0
    for _ in range(2000):
        heard += bool(swarm.say("s0p0", peer.beacon()))
    assert AT_ONCE - 2 <= heard <= AT_ONCE + IN_AN_INTERVAL
    before = swarm.version
    swarm.run(20.0)
    assert swarm.version > before + 5 and not swarm.fenced()
