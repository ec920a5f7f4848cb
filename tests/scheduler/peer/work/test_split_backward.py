"""Backward in two halves, and when the second one is computed. PeerCore alone."""

from __future__ import annotations

import pytest

from swarmrt.ids import MicrobatchId, Work
from swarmrt.messages import (
    Accumulated,
    Backward,
    Forward,
    GetFrame,
    Granted,
    NoFrame,
    Prepare,
    Recover,
    Refused,
    Released,
    Stale,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    DeadlinePassed,
    Event,
    ForwardDone,
    PeerLost,
    Received,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    ClearGradients,
    DropRound,
    Forget,
    Instruction,
    RunBackward,
    RunForward,
    RunWeightGradients,
)
from tests.scheduler.peer_core import MB, ME, TRAINER, UP, UP2, A, Peer, mb, sent

ALL = (0, 1, 2)


def computing(instructions: list[Instruction]) -> list[Instruction]:
    kinds = RunForward | RunBackward | RunWeightGradients
    return [i for i in instructions if isinstance(i, kinds)]


def split(peer: Peer, microbatch: MicrobatchId = MB) -> list[Instruction]:
    """Up to the end of the first half."""
    to = peer.pushed(microbatch)
    run = peer.get(Backward(1, microbatch, (UP, ME, to), ALL), to)
    assert RunBackward(microbatch, True, later=True) in run
    return peer.feed(BackwardDone(microbatch, 1.0, 100))


def test_gradient_goes_on_first_and_the_receipt_waits_for_the_weights() -> None:
    peer = Peer(most_left=1)
    done = split(peer)
    assert sent(done, Backward)[0][0] == UP and not sent(done, Accumulated)
    assert computing(done) == [RunWeightGradients(MB)], "there is nothing else to do"
    rest = peer.feed(WeightGradientsDone(MB, 1.0))
    assert sent(rest, Accumulated) == [(TRAINER, Accumulated(1, 1, MB, 1))]
    assert not sent(rest, Backward)


def test_repeated_backward_meanwhile_is_answered_and_adds_nothing() -> None:
    peer = Peer(most_left=1)
    split(peer)
    to = peer.heir()
    again = peer.get(Backward(1, MB, (UP, ME, to), ALL), to)
    assert sent(again, Backward) and not sent(again, Accumulated) and not computing(again)
    assert sent(peer.feed(WeightGradientsDone(MB, 1.0)), Accumulated)
    assert sent(peer.get(Backward(1, MB, (UP, ME, to), ALL), to), Accumulated)


@pytest.mark.parametrize("most_left", [1, 2])
def test_weights_wait_for_other_work_until_too_many_are_left(most_left: int) -> None:
    peer = Peer(most_left=most_left)
    pushed = {}
    for index in range(4):
        peer.forward(mb(index))
    for index in range(3):
        pushed[index] = sent(peer.computed(mb(index)), Forward)[0][0]
    for index in range(3):
        peer.get(Backward(1, mb(index), (UP, ME, pushed[index]), ALL), pushed[index])
    peer.computed(mb(3))
    order = []
    for index in range(3):
        order += computing(peer.feed(BackwardDone(mb(index), 1.0, 100)))
        if isinstance(order[-1], RunWeightGradients):
            order += computing(peer.feed(WeightGradientsDone(mb(order[-1].microbatch.index), 1.0)))
    expected: list[Instruction] = [RunBackward(mb(i), True, True) for i in (1, 2)]
    expected.insert(most_left, RunWeightGradients(mb(0)))
    assert order[:3] == expected


def test_weights_of_an_older_step_go_first_because_its_commit_waits() -> None:
    peer = Peer(most_left=4, staleness=1)
    to = peer.pushed(mb(0))
    peer.forward(mb(1))
    peer.forward(mb(0, step=1))
    peer.get(Backward(1, mb(0), (UP, ME, to), ALL), to)
    assert computing(peer.computed(mb(1))) == [RunBackward(mb(0), True, True)]
    assert computing(peer.feed(BackwardDone(mb(0), 1.0, 100))) == [RunWeightGradients(mb(0))]
    assert computing(peer.feed(WeightGradientsDone(mb(0), 1.0))) == [RunForward(mb(0, step=1))]


def test_backward_is_in_one_where_it_gains_nothing() -> None:
    """Computations are short, no stage before needs the gradient, or it may not be split."""
    short, alone, forbidden = Peer(most_left=1), Peer(most_left=1), Peer(most_left=0)
    short.forward()
    to = sent(short.feed(ForwardDone(MB, 0.001, 7.0, 5, 100)), Forward)[0][0]
    assert RunBackward(MB, True) in short.get(Backward(1, MB, (UP, ME, to), ALL), to)
    for peer, need in ((alone, (1, 2)), (forbidden, ALL)):
        to = peer.pushed()
        assert RunBackward(MB, True) in peer.get(Backward(1, MB, (UP, ME, to), need), to)


# ---------------------------------------------------------------------- when something is lost


def test_roster_that_lacks_what_is_half_added_is_refused() -> None:
    peer = Peer(most_left=1)
    split(peer)
    refused = peer.get(Prepare(1, 0, 1, ((ME, ()),), (), 10))
    assert "accumulated [0]" in sent(refused, Refused)[0][1].reason


def test_first_half_voids_the_round_under_way() -> None:
    peer = Peer(most_left=1)
    to = peer.pushed()
    peer.get(Prepare(1, 0, 7, ((A, ()), (ME, ())), (), 10))
    peer.get(Backward(1, MB, (UP, ME, to), ALL), to)
    assert DropRound(0, 7) in peer.feed(BackwardDone(MB, 1.0, 100))
    assert peer.reducing.round(0) is None


def test_what_is_left_is_void_with_the_rest() -> None:
    """Before it has begun there is nothing more to come; while it runs, it is cleared after."""
    peer = Peer(most_left=1)
    to = peer.pushed(mb(0))
    peer.forward(mb(1))
    peer.forward(mb(2))
    peer.get(Backward(1, mb(0), (UP, ME, to), ALL), to)
    peer.computed(mb(1))
    assert computing(peer.feed(BackwardDone(mb(0), 1.0, 100))) == [RunForward(mb(2))]
    assert ClearGradients() in peer.feed(PeerLost(TRAINER, ""))
    assert not peer.core.seat_core.computing.is_accumulated(mb(0))

    peer = Peer(most_left=1)
    split(peer)
    void = peer.feed(PeerLost(TRAINER, ""))
    assert ClearGradients() in void and Forget(MB) in void
    assert ClearGradients() in peer.feed(WeightGradientsDone(MB, 1.0))
    assert not peer.core.seat_core.computing.is_accumulated(MB)


def test_microbatch_that_is_half_added_is_not_recovered_again_and_not_given_up() -> None:
    peer = Peer(most_left=1)
    split(peer)
    assert peer.get(Recover(1, MB, (UP, ME, A), (1,))) == []
    assert not sent(peer.feed(PeerLost(A, "")), Released)
    assert not sent(peer.get(NoFrame(1, MB, "gradient"), A), Released)
    assert sent(peer.feed(WeightGradientsDone(MB, 1.0)), Accumulated)


def test_forward_again_meanwhile_does_not_add_it_twice() -> None:
    """Found by the simulator: frames are gone, a new attempt comes, the weights are still left."""
    peer = Peer(most_left=4, retain_bytes=0)
    peer.forward(mb(0))
    for index in (1, 2):
        peer.forward(mb(index))
    to = sent(peer.computed(mb(0)), Forward)[0][0]
    peer.get(Backward(1, mb(0), (UP, ME, to), ALL), to)
    peer.computed(mb(1))
    assert computing(peer.feed(BackwardDone(mb(0), 1.0, 100))) == [RunForward(mb(2))]
    peer.forward(mb(0), attempt=2)
    assert RunForward(mb(0)) in peer.computed(mb(2)), "its output is not retained"
    to = sent(peer.computed(mb(0)), Forward)[0][0]
    run = peer.get(Backward(1, mb(0), (UP, ME, to), (0, 1)), to)
    run += peer.feed(WeightGradientsDone(mb(0), 1.0))
    assert RunBackward(mb(0), False) in run and len(sent(run, Accumulated)) == 1
    assert not computing(peer.feed(BackwardDone(mb(0), 1.0, 100)))


def test_owner_before_that_is_new_gets_the_gradient_before_the_weights_are_added() -> None:
    peer = Peer(most_left=1)
    split(peer)
    assert sent(peer.get(GetFrame(1, MB, "gradient"), UP2), Backward)[0][0] == UP2


# ---------------------------------------------------------------------- grants


def last(claim_s: float) -> Peer:
    """A last stage that had a grant after so long, and another claim before the first backward."""
    peer = Peer(num_stages=2, most_left=1)
    for index in range(3):
        peer.forward(mb(index))
    peer.computed(mb(0))
    peer.now += claim_s
    peer.get(Granted(1, mb(0), (UP, ME), (0, 1)))
    assert computing(peer.computed(mb(1))) == [RunBackward(mb(0), True, True)]
    return peer


def test_last_stage_waits_for_a_grant_that_comes_at_once() -> None:
    peer = last(claim_s=0.0)
    assert not computing(peer.feed(BackwardDone(mb(0), 1.0, 100)))
    granted = peer.get(Granted(1, mb(1), (UP, ME), (0, 1)))
    assert computing(granted) == [RunBackward(mb(1), True, True)]


@pytest.mark.parametrize(
    "event", [DeadlinePassed("grant"), Received(TRAINER, Stale(Work(mb(1), 1)))], ids=["late", "no"]
)
def test_it_goes_on_when_the_grant_is_late_or_refused(event: Event) -> None:
    peer = last(claim_s=0.0)
    peer.feed(BackwardDone(mb(0), 1.0, 100))
    assert computing(peer.feed(event)) == [RunForward(mb(2))]


def test_it_does_not_wait_where_grants_take_their_time() -> None:
    done = last(claim_s=0.1).feed(BackwardDone(mb(0), 1.0, 100))
    assert computing(done) == [RunForward(mb(2))]
