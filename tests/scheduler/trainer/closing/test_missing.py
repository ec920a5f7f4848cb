"""Late rounds and late updates name who is missing, and go on without it where there are others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Applied, Message, Prepared
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
