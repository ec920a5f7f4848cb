"""A peer gives its outputs to replicas that the trainer calls near, and to others only in need."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import Accepted, Busy, Forward, GetFrame, Standing
from swarmrt.scheduler.events import PeerLost, SendFailed
from tests.scheduler.peer_core import A, B, Peer, mb, sent

FAR = PeerId("far")


def with_far_one() -> Peer:
    """A is far from it, B is near."""
    peer = Peer()
    peer.get(Standing(1, 2, A, True, 0.0, False))
    return peer


def test_outputs_stay_in_the_island() -> None:
    peer = with_far_one()
    assert {peer.pushed(mb(index)) for index in range(20)} == {B}


def test_who_is_busy_is_tried_again() -> None:
    peer = with_far_one()
    to = peer.pushed()
    assert to == B and not sent(peer.get(Busy(Work(MicrobatchId(0, 0), 1), 1.0, 9.0), B), Forward)


def test_output_goes_elsewhere_as_soon_as_nobody_near_is_there() -> None:
    peer = with_far_one()
    peer.pushed()
    [(to, _)] = sent(peer.feed(PeerLost(B, "killed")), Forward)
    assert to == A
    assert {peer.pushed(mb(index)) for index in range(1, 20)} == {A}
    peer.get(Standing(1, 2, FAR, True))
    assert {peer.pushed(mb(index)) for index in range(20, 40)} == {FAR}, "somebody near is there"
    peer.get(Standing(1, 2, FAR, False))
    assert peer.pushed(mb(40)) == A


def test_who_moves_takes_its_work_elsewhere() -> None:
    peer = with_far_one()
    first = peer.pushed()
    peer.get(Accepted(Work(MicrobatchId(0, 0), 1), 1.0, 0.0), first)
    peer.get(Standing(1, 2, A, True, 0.0, True))
    peer.get(Standing(1, 2, B, True, 0.0, False))
    assert {peer.pushed(mb(index)) for index in range(1, 20)} == {A}
    assert peer.heir() == B, "what was taken stays where it is"


def test_push_to_one_that_has_moved_goes_again_if_it_fails() -> None:
    peer = with_far_one()
    peer.forward()
    [(to, message)] = sent(peer.computed(), Forward)
    peer.get(Standing(1, 2, A, True, 0.0, True))
    peer.get(Standing(1, 2, B, True, 0.0, False))
    assert to == B
    assert [to for to, _ in sent(peer.feed(SendFailed(B, message)), Forward)] == [A]


def test_who_is_far_gets_frames_to_recover() -> None:
    peer = with_far_one()
    peer.pushed()
    assert [
        to for to, _ in sent(peer.get(GetFrame(1, MicrobatchId(0, 0), "output"), A), Forward)
    ] == [A]
