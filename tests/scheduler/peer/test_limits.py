"""The limits that a peer's owner sets: what its memory has room for, and pauses."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Accepted, Backward, Beacon, Busy, Forward, Prepare, Standing
from swarmrt.scheduler.events import BackwardDone, PauseRequested, ResumeRequested, StopRequested
from swarmrt.scheduler.instructions import ClearGradients, Forget, FreeDevice, Stop
from tests.scheduler.peer_core import ME, UP, A, B, Peer, mb, sent


def given(peer: Peer, numbers: range) -> list[PeerId]:
    """Return to whom it pushes so many microbatches."""
    return [sent(peer.computed(mb(n)), Forward)[0][0] for n in numbers if peer.forward(mb(n))]


def test_it_takes_as_many_as_it_has_room_for_and_one_that_waits() -> None:
    peer = Peer(holds=2)
    for number in range(3):
        assert sent(peer.forward(mb(number)), Accepted)
    assert sent(peer.forward(mb(3)), Busy)
    assert sent(peer.forward(mb(1)), Accepted), "it has that one"
    assert sent(peer.get(Standing(1, 0, UP, True)), Busy) == []
    to = sent(peer.computed(mb(0)), Forward)[0][0]
    peer.get(Backward(1, mb(0), (UP, ME, to), (0, 1, 2)), to)
    peer.computed(mb(1))
    peer.feed(BackwardDone(mb(0), 1.0, 100))
    assert sent(peer.forward(mb(3)), Accepted)


def test_it_gives_no_more_than_the_next_has_room_for() -> None:
    peer = Peer()
    peer.get(Standing(1, 2, A, True, holds=1))
    peer.get(Standing(1, 2, B, True, holds=2))
    pushes = given(peer, range(5))
    assert sorted(pushes) == [A, A, B, B, B]
    peer.forward(mb(5))
    assert not sent(peer.computed(mb(5)), Forward), "nobody has room"
    to = pushes[0]
    told = peer.get(Backward(1, mb(0), (UP, ME, to), (0, 1, 2)), to)
    assert not sent(told, Busy)


def test_room_that_cannot_be_is_not_believed() -> None:
    peer = Peer()
    peer.get(Standing(1, 2, A, True, holds=-1))
    assert {A, B} == set(given(peer, range(8)))


def test_a_pause_voids_all_and_gives_the_device_back_once_nothing_runs() -> None:
    peer = Peer()
    peer.accumulate(mb(0))
    peer.forward(mb(1))
    told = peer.feed(PauseRequested())
    assert Forget(mb(1)) in told and ClearGradients() in told and FreeDevice() not in told
    [(_, beacon)] = sent(told, Beacon)
    assert beacon.paused and beacon.state == "joining" and beacon.term == 0
    assert FreeDevice() in peer.computed(mb(1))
    assert sent(peer.forward(mb(2)), Busy)
    assert peer.get(Prepare(1, 0, 1, ((ME, (0,)),), (), 10)) == []
    [(_, beacon)] = sent(peer.feed(ResumeRequested()), Beacon)
    assert not beacon.paused


def test_pauses_and_resumes_may_be_repeated() -> None:
    peer = Peer()
    assert sum(FreeDevice() in peer.feed(PauseRequested()) for _ in range(3)) == 1
    assert len([told for _ in range(3) if (told := peer.feed(ResumeRequested()))]) == 1
    assert FreeDevice() in peer.feed(PauseRequested())


def test_gentle_pause_that_is_taken_back_never_comes() -> None:
    peer = Peer()
    assert peer.feed(PauseRequested(gently=True)) == []
    assert sent(peer.forward(mb(0)), Accepted)
    peer.feed(ResumeRequested())
    assert sent(peer.forward(mb(1)), Accepted)
    assert not peer.core.seat.is_paused


def test_who_leaves_and_is_paused_leaves_at_once() -> None:
    peer = Peer()
    peer.feed(StopRequested("asked"))
    assert any(isinstance(told, Stop) for told in peer.feed(PauseRequested()))
