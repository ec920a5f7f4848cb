"""What those cost the trainer who serve where they help most: whatever they say, and however often
they come and go."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Offer, Take
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import Send, StartDeadline
from swarmrt.scheduler.timing.times import ARRANGE_S, OFFERS_S
from swarmrt.scheduler.trainer.membership.arranging import arranging
from swarmrt.scheduler.trainer.membership.arranging.arranging import SILENT
from tests.scheduler.trainer_core import Swarm

MOVER = PeerId("m0")


def with_mover() -> Swarm:
    """It says what it may serve, and holds no seat."""
    swarm = Swarm((1, 1))
    swarm.run_to(2)
    swarm.say(MOVER, Offer((0, 1), (), 2, pinned=True))
    return swarm


def test_an_offer_of_more_stages_than_there_are_is_not_kept() -> None:
    """Each would be gone through at every look."""
    swarm = Swarm((1, 1))
    swarm.run_to(2)
    swarm.say(MOVER, Offer((0, 1) * 1000, (), 2))
    assert len(swarm.core.run.processes) == 0
    swarm.say(MOVER, Offer((0, 1), (0, 1), 2))
    assert len(swarm.core.run.processes) == 1


def test_links_that_break_cost_no_decision_each() -> None:
    """Strangers have links too, and all of a large swarm are looked at in a decision."""
    swarm = with_mover()
    swarm.run(2.0)
    for whose in (PeerId("stranger"), MOVER):
        told = swarm.feed(PeerLost(whose, "broken"))
        assert not any(isinstance(i, StartDeadline) and i.name == "arrange" for i in told)
    (process,) = swarm.core.run.processes
    assert process.is_away


def test_who_is_silent_is_forgotten_in_a_swarm_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large one is looked at more rarely than a process may be silent; here two are many."""
    monkeypatch.setattr(arranging, "MANY", ARRANGE_S / (SILENT * OFFERS_S))
    swarm = with_mover()
    swarm.run(6 * SILENT * OFFERS_S)
    assert len(swarm.core.run.processes) == 0


def test_who_never_loads_keeps_nobody_else_from_the_stage() -> None:
    """It has opened a seat where nobody serves any more, and nothing comes of it. Another one
    serves a stage that has more than it needs."""
    swarm = Swarm((1, 1))
    swarm.join("m1/0", 0)
    swarm.run_to(3)
    del swarm.peers[PeerId("s1p0")]
    swarm.feed(PeerLost(PeerId("s1p0"), "killed"))
    swarm.say(MOVER, Offer((1,), (), 2))
    swarm.run(1.0)
    assert taken(swarm, MOVER) == [1]
    for _ in range(110):
        swarm.say(MOVER, Offer((1,), (1,), 2))
        swarm.say("m1", Offer((0, 1), (0, 1) if taken(swarm, "m1") else (0,), 2))
        swarm.run(OFFERS_S)
    assert taken(swarm, "m1") == [1]


def taken(swarm: Swarm, process: str) -> list[int]:
    """Return the stages at which a process was told to open a seat."""
    told = (i for _, i in swarm.told if isinstance(i, Send) and i.to == process)
    return [i.message.stage for i in told if isinstance(i.message, Take)]
