"""PeerCore alone: events in, instructions out."""

from __future__ import annotations

from typing import Any

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Backward,
    Busy,
    Claim,
    Evaluated,
    Forward,
    Granted,
    Message,
    Prepare,
    Refused,
    Stale,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    Event,
    ForwardDone,
    PeerLost,
    PeersSeen,
    Received,
    SendFailed,
    Started,
)
from swarmrt.scheduler.instructions import (
    Forget,
    Instruction,
    RunBackward,
    RunForward,
    Send,
)
from swarmrt.scheduler.peer import PeerCore, PeerSettings

ME, TRAINER, UP, A, B = map(PeerId, ["me", "trainer", "up", "a", "b"])


class Peer:
    """A served peer of stage 1 of `num_stages`; it checks its invariants after every event."""

    def __init__(self, num_stages: int = 3, queue_s: float = 10.0) -> None:
        self.core = PeerCore(PeerSettings(ME, TRAINER, 1, num_stages, 0, queue_s, 1000, 15.0))
        self.now = 0.0
        self.feed(Started(0, "initial"))
        self.get(Admit(1, 0, "", ()))
        if num_stages > 2:
            self.feed(PeersSeen(2, (A, B)))

    def feed(self, event: Event) -> list[Instruction]:
        self.now += 0.001
        instructions = self.core.handle(event, self.now)
        self.core.validate()
        return instructions

    def get(self, message: Message, sender: PeerId = TRAINER) -> list[Instruction]:
        return self.feed(Received(sender, message))


def work(index: int = 0, step: int = 0, held_out: bool = False) -> Work:
    return Work(MicrobatchId(step, index, held_out), 1)


def sent(instructions: list[Instruction], kind: type[Message]) -> list[tuple[PeerId, Any]]:
    return [
        (i.to, i.message) for i in instructions if isinstance(i, Send) and type(i.message) is kind
    ]


def forward(peer: Peer, w: Work) -> list[Instruction]:
    return peer.get(Forward(w, 1, (UP,)), UP)


def test_backward_goes_before_forward_and_the_oldest_first() -> None:
    peer = Peer()
    for index in (0, 3, 1, 2):
        forward(peer, work(index))
    pushed = sent(peer.feed(ForwardDone(work(0), 1.0, 0.0, 0)), Forward)
    assert pushed[0][1].work == work(0)
    peer.get(Backward(work(0), 1, (UP, ME, A)), pushed[0][0])
    assert RunBackward(work(0)) in peer.feed(ForwardDone(work(1), 1.0, 0.0, 0))
    assert RunForward(work(2)) in peer.feed(BackwardDone(work(0), 1.0))


def test_forward_of_the_next_step_waits_for_its_version() -> None:
    peer = Peer()
    instructions = forward(peer, work(0, step=1))
    assert sent(instructions, Accepted)
    assert RunForward(work(0, step=1)) not in instructions


def test_full_queue_answers_busy_and_keeps_nothing() -> None:
    peer = Peer(queue_s=1.5)
    forward(peer, work(0))
    peer.feed(ForwardDone(work(0), 1.0, 0.0, 0))
    for index in range(1, 4):
        forward(peer, work(index))
    instructions = forward(peer, work(9))
    assert sent(instructions, Busy) and Forget(work(9)) in instructions


def test_refused_failed_and_lost_pushes_go_elsewhere() -> None:
    for failure in ("busy", "failed", "lost"):
        peer = Peer()
        forward(peer, work())
        [(first, message)] = sent(peer.feed(ForwardDone(work(), 1.0, 0.0, 0)), Forward)
        match failure:
            case "busy":
                again = peer.get(Busy(work(), 1.0, 9.0), first)
            case "failed":
                again = peer.feed(SendFailed(first, message))
            case _:
                again = peer.feed(PeerLost(first, "gone"))
        [(second, same)] = sent(again, Forward)
        assert same == message and {first, second} == {A, B}, failure


def test_repeated_backward_is_answered_from_the_record() -> None:
    peer = Peer()
    forward(peer, work())
    [(to, _)] = sent(peer.feed(ForwardDone(work(), 1.0, 0.0, 0)), Forward)
    backward = Backward(work(), 1, (UP, ME, to))
    assert RunBackward(work()) in peer.get(backward, to)
    assert peer.get(backward, to) == [], "while it runs"
    done = peer.feed(BackwardDone(work(), 1.0))
    assert sent(done, Accumulated) == [(TRAINER, Accumulated(work(), 1))]
    assert sent(done, Backward)[0][0] == UP
    again = peer.get(backward, to)
    assert again == done[:2] and not any(isinstance(i, RunBackward) for i in again)


def test_last_stage_claims_and_runs_backward_only_if_granted() -> None:
    peer = Peer(num_stages=2)
    forward(peer, work(0))
    forward(peer, work(1))
    claims = sent(peer.feed(ForwardDone(work(0), 1.0, 7.0, 5)), Claim)
    assert claims == [(TRAINER, Claim(work(0), 1, (UP, ME), 7.0, 5))]
    peer.feed(ForwardDone(work(1), 1.0, 7.0, 5))
    assert peer.get(Granted(work(0))) == [RunBackward(work(0))]
    assert peer.get(Stale(work(1))) == [Forget(work(1))]
    assert peer.get(Granted(work(1))) == []


def test_only_the_trainer_grants() -> None:
    peer = Peer(num_stages=2)
    forward(peer, work())
    peer.feed(ForwardDone(work(), 1.0, 7.0, 5))
    assert peer.get(Granted(work()), sender=A) == []


def test_evaluation_leaves_nothing_behind() -> None:
    peer = Peer(num_stages=2)
    held_out = work(held_out=True)
    forward(peer, held_out)
    instructions = peer.feed(ForwardDone(held_out, 1.0, 7.0, 5))
    assert sent(instructions, Evaluated) and Forget(held_out) in instructions


def test_roster_that_differs_from_the_record_is_refused() -> None:
    peer = Peer()
    refused = peer.get(Prepare(1, 0, 1, ((ME, (0,)),), 10))
    assert "accumulated []" in sent(refused, Refused)[0][1].reason


def test_lower_epoch_is_stale_and_higher_one_voids() -> None:
    peer = Peer()
    forward(peer, work(0))
    instructions = peer.get(Admit(2, 0, "", ()))
    assert Forget(work(0)) in instructions
    assert sent(forward(peer, work(1)), Stale)
    assert peer.get(Admit(1, 0, "", ())) == []
