"""A run whose stage nobody serves: what it costs meanwhile, and what people see of it."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import ReportPeer
from swarmrt.scheduler.trainer.work.books import Books
from tests.scheduler.trainer_core import Swarm


def test_paused_run_looks_for_no_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after every event, for every microbatch, among replicas that are not there."""
    swarm = Swarm((2, 1), microbatches=40)
    swarm.run_to(3)
    while not swarm.core.run.books.num_owned(PeerId("s1p0")):
        swarm.run(0.005)
    del swarm.peers[PeerId("s1p0")]
    swarm.feed(PeerLost(PeerId("s1p0"), "cut"))
    assert swarm.core.run.books.has_vacancies
    loads: list[int] = []
    monkeypatch.setattr(Books, "load", lambda _, stage: loads.append(stage))
    swarm.run(5.0)
    assert not loads


def test_who_was_only_seen_leaves_the_view_when_it_is_gone() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    for name in ("expired", "cut"):
        swarm.say(name, Beacon(1, 0, 1, "leaving", 3, "d", -1, -1, 0.0, 0, 0, 0.0))
    swarm.feed(PeerLost(PeerId("cut"), "cut"))
    swarm.run(20.0)
    shown: dict[str, str] = {}
    for _, told in swarm.told:
        if isinstance(told, ReportPeer):
            shown[told.peer] = told.state
    assert shown["expired"] == shown["cut"] == "lost"
