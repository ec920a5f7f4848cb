"""Letting peers in, and telling late beacons from those of a peer that has voided its work."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Applied, Apply, Beacon, Hail, Message, Ready
from swarmrt.scheduler.events import DeadlinePassed, PeerLost, PeersSeen, Received, Started
from swarmrt.scheduler.instructions import ReportRecovery, Send
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from tests.scheduler.trainer_core import Swarm, silent_about

PEER = PeerId("peer")
SETTINGS = TrainerSettings(
    me=PeerId("trainer"),
    seed=0,
    epoch=1,
    start_version=0,
    steps=10,
    microbatches=4,
    eval_every=0,
    eval_microbatches=0,
    checkpoint_every=0,
    needed=(1, 1),
    start_digests=(),
    record_ttl_s=15.0,
    resume=False,
)


class Trainer:
    """A core that has admitted a peer, in term 1, at 10.0, and has heard that it is ready."""

    def __init__(self) -> None:
        self.core = TrainerCore(SETTINGS)
        self.core.handle(Started(), 0.0)
        self.hear(self.beacon(0, "joining"), 10.0)
        self.hear(Ready(1, 1, 0, "d"), 10.01)
        assert self.is_ready

    def beacon(self, term: int, state: str) -> Beacon:
        return Beacon(1, term, 0, state, 0, "d", -1, -1, 0.0, 0, 0, 0.0)  # type: ignore[arg-type]

    def hear(self, message: Message, now: float) -> list[str]:
        """Why somebody is fenced."""
        instructions = self.core.handle(Received(PEER, message), now)
        return [i.reason for i in instructions if isinstance(i, ReportRecovery)]

    @property
    def is_ready(self) -> bool:
        member = self.core.run.members.get(PEER)
        return member is not None and member.state is Membership.READY


def test_late_copies_of_what_a_peer_said_before_its_admission_change_nothing() -> None:
    """Beacons come by two ways, and each hail is answered by one."""
    trainer = Trainer()
    for now in (10.01, 10.011, 10.02):
        assert trainer.hear(trainer.beacon(0, "joining"), now) == []
    assert trainer.hear(trainer.beacon(1, "serving"), 10.5) == []
    assert trainer.hear(trainer.beacon(0, "joining"), 11.0) == []
    assert trainer.is_ready


def test_who_was_lost_is_not_hailed_while_the_directory_still_names_it() -> None:
    """A record outlives its peer. When that is heard again, or the record could not be there, it
    is hailed."""
    trainer = Trainer()

    def hailed(now: float) -> list[PeerId]:
        sends = trainer.core.handle(PeersSeen(0, (PEER,)), now)
        return [i.to for i in sends if isinstance(i, Send) and isinstance(i.message, Hail)]

    trainer.core.handle(PeerLost(PEER, "its link broke"), 11.0)
    assert hailed(12.0) == hailed(20.0) == []
    assert hailed(11.0 + SETTINGS.record_ttl_s + 1.0) == [PEER]


def test_peer_that_goes_on_saying_so_has_voided_its_work() -> None:
    trainer = Trainer()
    assert trainer.hear(trainer.beacon(0, "joining"), 12.0) == []
    (reason,) = trainer.hear(trainer.beacon(0, "joining"), 12.5)
    assert "it has voided its work" in reason
    assert not trainer.is_ready


def test_the_only_one_that_is_left_of_a_stage_is_let_in_whatever_it_was_barred_for() -> None:
    """Two replicas are cut off from each other and both left out for the step; then one dies."""
    swarm = Swarm((2, 2))
    swarm.run_to(3)
    one, other = PeerId("s1p0"), PeerId("s1p1")
    for peer in (one, other):
        swarm.core.run.charge(peer, "it cannot be reached by the other", "cut")
    del swarm.peers[one]
    for event in (DeadlinePassed("none"), PeerLost(one, "killed")):
        swarm.feed(event)
    assert set(swarm.fenced()) == {one, other}
    swarm.peers[other].state = "joining"
    swarm.run_to(10, limit_s=30.0)


def test_the_last_one_that_has_prepared_a_version_is_told_to_apply_though_it_leaves() -> None:
    """Found by a soak. Its Apply was lost, and nobody else can make that version: nobody went back,
    as it was about to come, and nobody went on."""
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    lone = PeerId("s1p0")
    swarm.peers[lone].habit = silent_about(Applied)
    run = swarm.core.run
    while "s0p0" not in (run.commit.applied if run.commit is not None else ()):
        swarm.run(0.005)
    del swarm.peers[lone]
    swarm.feed(PeerLost(lone, "cut"))
    assert run.members.bare_stages() == [1]
    number, norm = run.update
    beacon = Beacon(1, 2, 1, "leaving", run.version - 1, "d", number, number - 1, 1.0, 0, 0, 0.0)
    told = swarm.core.handle(Received(lone, beacon), swarm.now)
    assert Send(lone, Apply(1, run.version - 1, number, norm, True)) in told


def test_a_beacon_that_is_older_than_what_its_sender_has_said_since_fences_nobody() -> None:
    """Datagrams may be late by more than an update is waited for."""
    swarm = Swarm((1, 2))
    swarm.run_to(8)
    run, name = swarm.core.run, PeerId("s1p0")
    late = swarm.peers[name].beacon()
    swarm.run_to(swarm.version + 1)
    while run.commit is not None:
        swarm.run(0.001)
    came_at = run.pace.applied_at + run.pace.apply_time.patience_s(5.0, 1) + 0.001
    told = swarm.core.handle(Received(name, late), max(came_at, swarm.now))
    assert [i.reason for i in told if isinstance(i, ReportRecovery)] == []
