"""What those cost the trainer who serve where they help most: whatever they say, and however often
they come and go."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Offer
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import StartDeadline
from tests.scheduler.trainer_core import Swarm

MOVER = PeerId("m0")


def with_mover() -> Swarm:
    """It says what it may serve, and holds no seat."""
    swarm = Swarm((1, 1))
    swarm.run_to(2)
    swarm.say(MOVER, Offer((0, 1), (), 2, pinned=True))
    return swarm


def test_links_that_break_cost_no_decision_each() -> None:
    """Strangers have links too, and all of a large swarm are looked at in a decision."""
    swarm = with_mover()
    swarm.run(2.0)
    for whose in (PeerId("stranger"), MOVER):
        told = swarm.feed(PeerLost(whose, "broken"))
        assert not any(isinstance(i, StartDeadline) and i.name == "arrange" for i in told)
    (process,) = swarm.core.run.processes
    assert process.is_away
