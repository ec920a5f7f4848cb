"""Microbatches that are late, while the trainer's own link holds words up."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Claim, Message
from swarmrt.scheduler.events import DeadlinePassed
from swarmrt.scheduler.instructions import StartDeadline
from swarmrt.scheduler.timing.agenda import TOLERANCE_S
from swarmrt.scheduler.trainer.membership.price import WORDS
from tests.scheduler.trainer_core import Swarm


@pytest.mark.parametrize("delay_s", [0.2, TOLERANCE_S / 4])
@pytest.mark.parametrize("left_s", [1.0, TOLERANCE_S / 2, 0.0])
def test_a_late_one_is_not_looked_at_again_at_once(left_s: float, delay_s: float) -> None:
    """Found by a soak: so shortly before it was due that deadlines pass by then, time stood still.
    It goes again instead."""
    swarm = Swarm((1, 1))
    swarm.peers[PeerId("s1p0")].habit = lambda word: [] if type(word) is Claim else [word]
    swarm.run(3.0)
    run = swarm.core.run
    microbatch, *_ = run.dispatch.under_way()
    now = run.dispatch.due_at(microbatch, WORDS * delay_s) - left_s
    run.own_link.delay_s = delay_s
    instructions = swarm.core.handle(DeadlinePassed("overdue"), now)
    deadlines = [i.at for i in instructions if type(i) is StartDeadline and i.name == "overdue"]
    assert all(at > now + TOLERANCE_S for at in deadlines)


def test_nobody_makes_a_trainer_wait_for_ever_by_what_it_says_of_its_pace() -> None:
    """The only replica of a stage says that a microbatch takes it ten days, and the first claims
    are lost. They are tried again before the run is given up."""
    swarm = Swarm((1, 1))

    def lies(word: Message) -> list[Message]:
        if isinstance(word, Claim) and swarm.now < 10.0:
            return []
        return [replace(word, service_s=1e6) if isinstance(word, Beacon) else word]

    swarm.peers[PeerId("s1p0")].habit = lies
    swarm.run_to(1, limit_s=1200.0)
    assert swarm.stopped is None and swarm.version == 1
