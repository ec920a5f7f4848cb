"""What those cost the trainer who serve where they help most: whatever they say, and however often
they come and go."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Offer
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import StartDeadline
from swarmrt.scheduler.timing.times import ARRANGE_S
from swarmrt.scheduler.trainer.membership.arranging import arranging
from swarmrt.scheduler.trainer.membership.arranging.arranging import SILENT_S
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


def test_who_is_silent_is_forgotten_in_a_swarm_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large one is looked at more rarely than a process may be silent; here two are many."""
    monkeypatch.setattr(arranging, "MANY", ARRANGE_S / SILENT_S)
    swarm = with_mover()
    swarm.run(6 * SILENT_S)
    assert len(swarm.core.run.processes) == 0
