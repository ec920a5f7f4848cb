"""What the trainer makes of microbatches that could not be computed, and whom it vouches for."""

from __future__ import annotations

import math
from collections import defaultdict

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Beacon,
    Claim,
    Drain,
    FailedIn,
    Finish,
    Forward,
    Leaving,
    Message,
    Ready,
    Released,
    Standing,
)
from swarmrt.scheduler.events import DeadlinePassed, PeerLost, Received, Started
from swarmrt.scheduler.instructions import Instruction, ReportRecovery, Send, Stop
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.work.failures import TRIES_ALONE, Failures
from tests.scheduler.trainer_core import Swarm, silent_about

MB = MicrobatchId(0, 0)
A, B, C, D, E = map(PeerId, "abcde")
STAGES = {A: 0, B: 1, C: 1, D: 2, E: 2}
SETTINGS = TrainerSettings(
    me=PeerId("trainer"),
    seed=0,
    epoch=1,
    start_version=0,
    steps=10,
    microbatches=2,
    eval_every=0,
    eval_microbatches=0,
    checkpoint_every=0,
    needed=(1, 1, 1),
    start_digests=(),
    record_ttl_s=15.0,
    resume=False,
)


class Trainer:
    """A core with these peers, which become ready one after the other."""

    def __init__(self, *peers: PeerId) -> None:
        self.core = TrainerCore(SETTINGS)
        self.now = 0.0
        self.core.handle(Started(), self.now)
        self.told: defaultdict[PeerId, set[PeerId]] = defaultdict(set)
        self.began: list[Instruction] = []
        for peer in peers:
            self.hear(peer, self.beacon(peer, 0, "joining"))
            self.began = self.hear(peer, Ready(1, self.term(peer), 0, "d"))

    def term(self, peer: PeerId) -> int:
        member = self.core.run.members.get(peer)
        assert member is not None
        return member.term

    def beacon(self, peer: PeerId, term: int, state: str) -> Beacon:
        stage = STAGES[peer]
        return Beacon(1, term, stage, state, 0, "d", -1, -1, 0.0, 0, 0, 0.0)  # type: ignore[arg-type]

    def hear(self, peer: PeerId, message: Message) -> list[Instruction]:
        self.now += 0.01
        instructions = self.core.handle(Received(peer, message), self.now)
        self.core.validate()
        for instruction in instructions:
            match instruction:
                case Send(to, Standing(_, stage, other, True)):
                    assert stage == STAGES[other] and abs(stage - STAGES[to]) == 1
                    self.told[to].add(other)
        return instructions

    def fails(
        self, peer: PeerId, microbatch: MicrobatchId = MB, what: FailedIn = "forward"
    ) -> list[Instruction]:
        return self.hear(peer, Released(1, self.term(peer), microbatch, "it fails", what))


def stops(instructions: list[Instruction]) -> list[str]:
    return [i.reason for i in instructions if isinstance(i, Stop)]


def attempts(instructions: list[Instruction]) -> list[MicrobatchId]:
    return [
        i.message.work.microbatch
        for i in instructions
        if isinstance(i, Send) and isinstance(i.message, Forward)
    ]


def test_what_one_could_not_compute_goes_again_and_two_that_cannot_either_end_the_run() -> None:
    trainer = Trainer(A, B, C, D)
    assert sorted(attempts(trainer.began)) == [MB, MicrobatchId(0, 1)]
    failed = trainer.fails(B)
    assert not stops(failed) and attempts(failed) == [MB]
    assert any(isinstance(i, ReportRecovery) and "it fails" in i.reason for i in failed)
    for _ in range(20):
        assert not stops(trainer.fails(B)), "one replica's word ends nothing"
    assert not stops(trainer.fails(C)), "once is an accident"
    (reason,) = stops(trainer.fails(C))
    assert reason == "microbatch 0.0 cannot be computed at stage 1, by b, c: it fails"


def test_whoever_gave_a_gradient_that_nobody_can_use_is_done_without_first() -> None:
    """Both replicas of stage 1 fail with what one of stage 2 gives them: it is tried without that
    one, and only then it is the data."""
    trainer = Trainer(A, B, C, D, E)
    trainer.hear(D, Claim(Work(MB, 1), 1, (A, B, D), 1.0, 10))

    def both_fail() -> list[str]:
        return [why for peer in (B, C, B, C) for why in stops(trainer.fails(peer, what="backward"))]

    assert not both_fail()
    member = trainer.core.run.members.get(D)
    assert member is not None and member.state is Membership.SEEN
    trainer.hear(E, Claim(Work(MB, 2), 1, (A, C, E), 1.0, 10))
    (reason,) = both_fail()
    assert reason == "microbatch 0.0 cannot be computed at stage 1, by b, c: it fails"


def test_two_that_fail_with_different_microbatches_end_nothing() -> None:
    trainer = Trainer(A, B, C, D)
    assert not stops(trainer.fails(B)) and not stops(trainer.fails(C, MicrobatchId(0, 1)))


def test_a_stage_that_can_compute_nothing_ends_the_run_soon() -> None:
    """Each microbatch fails once, at whoever has it, and nothing is done in between."""
    for replicas, needed in (([B], 6), ([B, C], 6)):
        failures = Failures()
        for number in range(20):
            released = Released(1, 1, MicrobatchId(0, number), "it fails", "forward")
            peer = replicas[number % len(replicas)]
            if failures.add(released, 1, peer, replicas):
                break
        assert number + 1 == needed


def test_a_stage_that_computes_now_and_then_goes_on() -> None:
    failures = Failures()
    for number in range(100):
        released = Released(1, 1, MicrobatchId(0, number), "it fails", "forward")
        assert not failures.add(released, 1, B, [B])
        if number % 4 == 3:
            failures.worked(0)
            failures.worked(1)
        else:
            failures.worked(2)


def test_a_stages_only_replica_is_tried_a_few_times() -> None:
    trainer = Trainer(A, B, D)
    for _ in range(TRIES_ALONE - 1):
        assert not stops(trainer.fails(B))
    assert stops(trainer.fails(B))


def test_a_model_that_fails_now_and_then_ends_nothing() -> None:
    """Three forwards and three backwards of one microbatch fail, wherever they run."""
    for alone in (True, False):
        trainer = Trainer(A, B, D) if alone else Trainer(A, B, C, D)
        for number in range(3):
            for what in ("forward", "backward"):
                assert not stops(trainer.fails(B if alone or number % 2 else C, what=what))


def test_a_backward_that_fails_before_anybody_has_claimed_it_is_a_failure_like_others() -> None:
    trainer = Trainer(A, B, C, D)
    ended = [stops(trainer.fails(peer, what="backward")) for peer in (B, C, B, C)]
    assert ended[:3] == [[], [], []] and "cannot be computed at stage 1, by b, c" in ended[3][0]


def test_failures_with_what_is_not_open_do_not_count() -> None:
    trainer = Trainer(A, B, C, D)
    for microbatch in (MicrobatchId(7, 0), MicrobatchId(0, 99), MicrobatchId(5, 0, held_out=True)):
        for peer in (B, C):
            assert trainer.fails(peer, microbatch) == []


def test_failures_of_steps_that_are_over_are_forgotten() -> None:
    failures, released = Failures(), Released(1, 1, MB, "it fails", "forward")
    assert not any(failures.add(released, 1, peer, (B, C)) for peer in (B, B, C))
    failures.drop(version=1)
    assert not failures.add(released, 1, C, (B, C))


# ---------------------------------------------------------------------- whom it vouches for


def test_neighbours_are_told_of_each_other_in_whatever_order_they_come() -> None:
    for order in ((A, B, C, D), (D, C, B, A), (B, D, A, C)):
        trainer = Trainer(*order)
        assert trainer.told == {A: {B, C}, B: {A, D}, C: {A, D}, D: {B, C}}


def test_one_that_wants_to_leave_is_still_served_if_it_is_the_only_one() -> None:
    trainer = Trainer(B, C, D)
    trainer.hear(D, Leaving(1, trainer.term(D), False))
    trainer.hear(A, trainer.beacon(A, 0, "joining"))
    trainer.hear(B, Leaving(1, trainer.term(B), False))
    trainer.hear(A, Ready(1, trainer.term(A), 0, "d"))
    assert trainer.told[A] == {C}, "the other one stays"
    trainer = Trainer(A, D)
    trainer.hear(D, Leaving(1, trainer.term(D), False))
    trainer.hear(B, trainer.beacon(B, 0, "joining"))
    trainer.hear(B, Ready(1, trainer.term(B), 0, "d"))
    assert trainer.told[B] == {A, D}


def test_one_that_wants_to_leave_before_anything_is_trained_is_let_go_at_once() -> None:
    """Nobody would take over from it what the seed does not give."""
    trainer = Trainer(A, B)
    assert trainer.hear(A, Leaving(1, trainer.term(A), False)) == [Send(A, Drain(1))]
    told = trainer.hear(A, Leaving(1, trainer.term(A), True))
    assert Send(A, Finish("drained at step 0")) in told and not stops(told)
    trainer = Trainer(A, B, D)
    assert trainer.began
    for idle in (False, True):
        told = trainer.hear(A, Leaving(1, trainer.term(A), idle))
        answers = [i.message for i in told if isinstance(i, Send) and i.to == A]
        assert answers == [Drain(1, True)], "the run has begun"


def test_what_was_lost_of_it_is_said_again() -> None:
    trainer = Trainer(A, B, C, D)
    trainer.told[A].clear()
    sent = 0
    for _ in range(20):
        trainer.now += 0.5
        sent += len(trainer.hear(A, trainer.beacon(A, trainer.term(A), "serving"))) > 1
    assert trainer.told[A] == {B, C} and sent <= 10, "not with every beacon"


def test_what_the_first_stage_does_not_answer_is_sent_again_while_it_is_heard() -> None:
    """Found by a soak: a forward was lost, and missed when a claim was due that takes long."""
    trainer = Trainer(A, B, C, D)
    trainer.core.watching.looks_by = math.inf  # it does not sleep, though no deadline passes
    given = attempts(trainer.began)
    assert MB in given
    sent = list[MicrobatchId]()
    for _ in range(40):
        trainer.now += 0.5
        sent += attempts(trainer.hear(A, trainer.beacon(A, trainer.term(A), "serving")))
    assert set(sent) == set(given) and 3 <= sent.count(MB) <= 6, "ever less often"
    for microbatch in given:
        trainer.hear(A, Accepted(Work(microbatch, 1), 0.1, 0.0))
    for _ in range(40):
        trainer.now += 0.5
        assert not attempts(trainer.hear(A, trainer.beacon(A, trainer.term(A), "serving")))


def test_a_flight_that_is_looked_at_a_little_early_is_late() -> None:
    """Deadlines are met within a tolerance: one that was set again for now would never end."""
    swarm = Swarm((1, 1), microbatches=1)
    swarm.run_to(5)
    swarm.peers[PeerId("s1p0")].habit = silent_about(Claim)
    run, flights = swarm.core.run, swarm.core.run.dispatch._flights
    while not flights or next(iter(flights.values())).claimed:
        swarm.run(0.002)
    due_at = next(iter(flights.values())).due_at
    swarm.core.handle(DeadlinePassed("overdue"), due_at - 1e-10)
    assert run.agenda.due(due_at) == []


def test_flights_are_waited_for_no_longer_than_claims_take_once_somebody_is_lost() -> None:
    """Some may have gone with it, and nobody says so: what a step takes is no measure for them."""
    swarm = Swarm((1, 2), microbatches=1)
    swarm.run_to(5)
    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].habit = silent_about(Claim)
    dispatch = swarm.core.run.dispatch
    while not dispatch._flights or next(iter(dispatch._flights.values())).claimed:
        swarm.run(0.002)
    (flight,) = dispatch._flights.values()
    flight.due_at = swarm.now + 1000.0
    del swarm.peers[PeerId("s1p1")]
    swarm.feed(PeerLost(PeerId("s1p1"), "killed"))
    assert flight.due_at == swarm.now + 3 * dispatch._claim_time.patience_s(10.0)
    assert flight.due_at < swarm.now + 30.0
