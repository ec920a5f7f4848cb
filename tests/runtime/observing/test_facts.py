"""The facts as they travel: what is told of a swarm, how often, and what nobody believes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given, settings

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import Facts, GetFacts, Message, Offer
from swarmrt.runtime.observing.facts_in_bytes import facts_in_bytes, read_facts
from swarmrt.runtime.observing.telling_facts import BUDGET, BUDGET_OF_ONE, FactsTold
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Stage, Swarm
from tests.scheduler.rebalancing.test_plans import swarms
from tests.scheduler.trainer_core import Swarm as CoreAndPeers

ASKER = PeerId("asker")
KNOWN = Swarm(1.0, (Stage(), Stage()), (Peer("a", 1.0, 0, frozenset({0})),))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms())
def test_facts_are_read_as_they_were_told(swarm: Swarm) -> None:
    assert read_facts(facts_in_bytes(swarm), len(swarm.stages)) == swarm


PEER = KNOWN.peers[0]
LIES = {
    "a stage that there is not": replace(PEER, holds=frozenset({2})),
    "a limit to one that there is not": replace(PEER, limits=Limits(stages=frozenset({-1}))),
    "a rate that is none": replace(PEER, rate=math.nan),
    "no rate": replace(PEER, rate=0.0),
    "no downlink": replace(PEER, limits=Limits(downlink_bytes_per_s=0.0)),
    "a name that is too long": replace(PEER, name="x" * 1000),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_cannot_be_true_is_refused(lie: Peer) -> None:
    with pytest.raises(RunError, match="cannot be true"):
        read_facts(facts_in_bytes(replace(KNOWN, peers=(lie,))), 2)


def test_another_run_s_stages_and_what_is_no_swarm_are_refused() -> None:
    with pytest.raises(RunError, match="cannot be true"):
        read_facts(facts_in_bytes(KNOWN), 3)
    with pytest.raises(RunError, match="cannot be true"):
        read_facts(facts_in_bytes(replace(KNOWN, peers=(PEER, PEER))), 2)
    for data in (b"", b"\xc1", msgspec.msgpack.encode({"now": "late"})):
        with pytest.raises(RunError, match="cannot be read"):
            read_facts(data, 2)


class Asked:
    """A trainer that is asked, and what it has answered."""

    def __init__(self, *, movers: int = 1, rearrange_s: float = 60.0) -> None:
        self.now_s = 10.0
        self.swarm = CoreAndPeers((1, 1), rearrange_s=rearrange_s)
        self.swarm.run_to(2)
        for number in range(movers):
            self.swarm.say(f"m{number}", Offer((0, 1), (), 2))
        self.told = FactsTold(self.swarm.core, lambda: self.now_s)
        self.sent: list[tuple[Facts, bytes]] = []

    def ask(self, who: PeerId = ASKER) -> tuple[Facts, bytes]:
        self.told.answer(who, GetFacts(7), self._send)
        return self.sent[-1]

    def _send(self, to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        assert isinstance(message, Facts) and message.number == 7
        self.sent.append((message, b"".join(t.numpy().tobytes() for t in tensors)))


def test_the_trainer_tells_what_it_decides_from() -> None:
    asked = Asked()
    facts, data = asked.ask()
    swarm = read_facts(data, 2)
    assert (facts.affordable, facts.version, facts.idle) == (True, 2, "")
    assert [peer.name for peer in swarm.peers] == ["s0p0", "s1p0", "m0"]
    assert swarm == asked.swarm.core.arranging.facts(asked.now_s)


def test_nothing_is_told_where_nothing_is_decided() -> None:
    assert [(f.idle, data) for f, data in [Asked(movers=0).ask()]] == [("nobody", b"")]
    assert [(f.idle, data) for f, data in [Asked(rearrange_s=0.0).ask()]] == [("off", b"")]


def test_who_asks_too_often_is_told_nothing_for_a_while() -> None:
    asked = Asked()
    most = int(BUDGET_OF_ONE.most)
    answers = [asked.ask() for _ in range(most + 2)]
    assert [bool(data) for _, data in answers] == [True] * most + [False] * 2
    assert not answers[-1][0].affordable
    others = [asked.ask(PeerId(f"other {n}"))[0].affordable for n in range(20)]
    assert sum(others) == int(BUDGET.most) - most  # all together have a bound as well
    asked.now_s += 60.0
    assert asked.ask()[0].affordable


def test_a_question_is_answered_with_what_was_told_an_instant_ago() -> None:
    """The trainer looks through its members no more often than it does without being asked."""
    asked = Asked()
    _, first = asked.ask()
    asked.swarm.say("m1", Offer((0, 1), (), 2))
    _, again = asked.ask(PeerId("other"))
    assert again == first
    asked.now_s += 1.0
    _, later = asked.ask(PeerId("third"))
    assert [peer.name for peer in read_facts(later, 2).peers][2:] == ["m0", "m1"]
