"""Late rounds and late updates name who is missing, and go on without it where there are others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Applied, Message, Prepared, Refused
from swarmrt.scheduler.instructions import ReportLate, ReportRecovery
from tests.scheduler.trainer_core import Swarm

SILENT = PeerId("s1p0")


def swarm_without(what: type[Message], replicas: Sequence[int]) -> Swarm:
    """Return what becomes of a swarm one of whose peers keeps this kind of answer to itself."""
    swarm = Swarm(replicas, microbatches=4)
    swarm.run_to(10)
    swarm.peers[SILENT].habit = lambda message: [] if isinstance(message, what) else [message]
    swarm.run(30.0)
    return swarm


@pytest.mark.parametrize("replicas", [(2, 2), (2, 1)], ids=str)
def test_late_update_names_who_is_missing(replicas: Sequence[int]) -> None:
    swarm = swarm_without(Applied, replicas)
    late = [told for _, told in swarm.told if isinstance(told, ReportLate)]
    assert late and SILENT in late[0].awaited
    assert "s0p0" not in late[0].awaited, "it has answered"
    assert (SILENT in swarm.fenced()) == (replicas == (2, 2))


@pytest.mark.parametrize("replicas", [(2, 2), (2, 1)], ids=str)
def test_late_round_names_who_is_missing(replicas: Sequence[int]) -> None:
    swarm = swarm_without(Prepared, replicas)
    recoveries = [told for _, told in swarm.told if isinstance(told, ReportRecovery)]
    void = [told.reason for told in recoveries if told.what == "void round"]
    assert "the reduce is late" in void[0] and SILENT in void[0] and "s0p0" not in void[0]
    assert (SILENT in swarm.fenced()) == (replicas == (2, 2))
    assert (swarm.version > 20) == (replicas == (2, 2)), "the others go on"


def test_who_says_that_it_waits_for_itself_was_waited_for_before_as_well() -> None:
    """A thread that hangs while slices of gradients are sent: in the first round its peer waits for
    the other's sum, and says so; in the second for its own. The other is trusted least."""
    swarm = Swarm((2, 2), microbatches=4)
    swarm.run_to(10)
    hangs, other = swarm.peers[SILENT], swarm.peers[PeerId("s1p1")]
    other.waits_for = SILENT
    rounds: set[int] = set()

    def hung(message: Message) -> list[Message]:
        if isinstance(message, Prepared):
            rounds.add(message.round)
            hangs.waits_for = other.name if len(rounds) == 1 else SILENT
            return []
        return [message]

    hangs.habit = hung
    other.habit = lambda message: [] if isinstance(message, Prepared) and rounds else [message]
    while SILENT not in swarm.fenced():
        swarm.run(0.1)
        assert len(rounds) <= 2, "it has been missing twice"


def test_rounds_that_were_void_at_once_make_nobody_patient() -> None:
    """They say nothing of how long one takes."""
    swarm = Swarm((2, 3), microbatches=4)
    swarm.run_to(20)

    def refuses(message: Message) -> list[Message]:
        if isinstance(message, Prepared) and len(void) < 2:
            void.append(message.round)
            key = (message.epoch, message.step, message.round)
            return [Refused(*key, "a cut that is over soon", PeerId("s1p1"))]
        return [message]

    void: list[int] = []
    swarm.peers[SILENT].habit = refuses
    run, waited_s = swarm.core.run, list[float]()
    while len(void) < 2:
        swarm.run(0.002)
        if run.round is not None:
            waited_s.append(run.agenda._newest["round", None][0] - run.round.began_at)
    assert max(waited_s) < 1.5 * min(waited_s)
