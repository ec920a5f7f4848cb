"""PeerCore alone: events in, instructions out."""

from __future__ import annotations

import math

import pytest

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Backward,
    Beacon,
    Busy,
    Claim,
    Evaluated,
    Forward,
    FrameKind,
    GetFrame,
    Granted,
    Hail,
    NoFrame,
    Part,
    Prepare,
    Prepared,
    Recover,
    Refused,
    Released,
    Stale,
    Standing,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    DeadlinePassed,
    GradientCombined,
    PartSummed,
    PeerLost,
    SendFailed,
    StateLoaded,
    Stepped,
)
from swarmrt.scheduler.instructions import (
    ClearGradients,
    CombineParts,
    DropFrames,
    DropRound,
    Forget,
    KeepGradient,
    KeepInput,
    KeepPart,
    LoadState,
    RunBackward,
    RunForward,
    StepOptimizer,
    Stop,
)
from tests.scheduler.peer_core import MB, ME, TRAINER, UP, UP2, A, B, Peer, mb, sent


def test_backward_goes_before_forward_and_the_oldest_first() -> None:
    peer = Peer()
    for index in (0, 3, 1, 2):
        peer.forward(mb(index))
    [(to, _)] = sent(peer.computed(mb(0)), Forward)
    peer.get(Backward(1, mb(0), (UP, ME, to), (0, 1, 2)), to)
    assert RunBackward(mb(0), True) in peer.computed(mb(1))
    assert RunForward(mb(2)) in peer.feed(BackwardDone(mb(0), 1.0, 100))


def test_forward_of_the_next_step_waits_for_its_version() -> None:
    instructions = Peer().forward(mb(0, step=1))
    assert sent(instructions, Accepted)
    assert RunForward(mb(0, step=1)) not in instructions


def test_work_that_waits_for_a_commit_is_no_reason_for_suspicion() -> None:
    peer = Peer()
    peer.forward(mb(0, step=1))
    [(_, beacon)] = sent(peer.feed(DeadlinePassed("beacon")), Beacon)
    assert beacon.queued == 0
    peer.forward(mb(0))
    peer.forward(mb(1))
    [(_, beacon)] = sent(peer.feed(DeadlinePassed("beacon")), Beacon)
    assert beacon.queued == 2


def test_full_queue_answers_busy_and_keeps_nothing() -> None:
    peer = Peer(queue_s=1.5)
    peer.forward(mb(0))
    peer.computed(mb(0))
    for index in range(1, 4):
        peer.forward(mb(index))
    instructions = peer.forward(mb(9))
    assert sent(instructions, Busy) and KeepInput(mb(9)) not in instructions


def test_queue_is_bounded_before_any_service_time_is_known() -> None:
    peer = Peer()
    answers = [peer.forward(mb(index)) for index in range(1100)]
    assert sent(answers[0], Accepted) and sent(answers[-1], Busy)


@pytest.mark.parametrize("failure", ["busy", "failed", "lost", "fenced", "late"])
def test_refused_failed_lost_and_late_pushes_go_elsewhere(failure: str) -> None:
    peer = Peer()
    peer.forward()
    [(first, message)] = sent(peer.computed(), Forward)
    match failure:
        case "busy":
            again = peer.get(Busy(Work(MB, 1), 1.0, 9.0), first)
        case "failed":
            again = peer.feed(SendFailed(first, message))
        case "lost":
            again = peer.feed(PeerLost(first, "gone"))
        case "fenced":
            again = peer.get(Standing(1, 2, first, False))
        case _:
            peer.now += 3600
            again = peer.feed(DeadlinePassed("overdue"))
    [(second, same)] = sent(again, Forward)
    assert same == message and {first, second} == {A, B}


def test_accepted_push_goes_again_when_its_peer_is_lost() -> None:
    peer = Peer()
    first = peer.pushed()
    peer.get(Accepted(Work(MB, 1), 1.0, 0.0), first)
    assert sent(peer.feed(PeerLost(first, "gone")), Forward)


def test_repeated_backward_is_answered_from_the_record() -> None:
    peer = Peer()
    to = peer.pushed()
    backward = Backward(1, MB, (UP, ME, to), (0, 1, 2))
    assert peer.get(backward, to) == [KeepGradient(MB), RunBackward(MB, True)]
    assert peer.get(backward, to) == [], "while it runs"
    done = peer.feed(BackwardDone(MB, 1.0, 100))
    assert sent(done, Accumulated) == [(TRAINER, Accumulated(1, 1, MB, 1))]
    assert sent(done, Backward)[0][0] == UP
    assert peer.get(backward, to) == done


def test_stage_that_is_not_needed_passes_on_without_accumulating() -> None:
    peer = Peer()
    to = peer.pushed()
    assert RunBackward(MB, False) in peer.get(Backward(1, MB, (UP, ME, to), (0,)), to)
    done = peer.feed(BackwardDone(MB, 1.0, 100))
    assert sent(done, Backward) and not sent(done, Accumulated)
    refused = peer.get(Prepare(1, 0, 1, ((ME, (0,)),), (), 10))
    assert "accumulated []" in sent(refused, Refused)[0][1].reason


def test_last_stage_claims_and_runs_backward_only_if_granted() -> None:
    peer = Peer(num_stages=2)
    peer.forward(mb(0))
    peer.forward(mb(1))
    claims = sent(peer.computed(mb(0)), Claim)
    assert claims == [(TRAINER, Claim(Work(mb(0), 1), 1, (UP, ME), 7.0, 5))]
    peer.computed(mb(1))
    granted = Granted(1, mb(0), (UP, ME), (0, 1))
    assert peer.get(granted) == [RunBackward(mb(0), True)]
    assert peer.get(Stale(Work(mb(1), 1))) == [Forget(mb(1))]
    assert peer.get(Granted(1, mb(1), (UP, ME), (0, 1))) == []


def test_only_the_trainer_grants() -> None:
    peer = Peer(num_stages=2)
    peer.forward()
    peer.computed()
    assert peer.get(Granted(1, MB, (UP, ME), (0, 1)), sender=A) == []


def test_evaluation_leaves_nothing_behind() -> None:
    peer = Peer(num_stages=2)
    held_out = MicrobatchId(0, 0, held_out=True)
    peer.forward(held_out)
    instructions = peer.computed(held_out)
    assert [message.epoch for _, message in sent(instructions, Evaluated)] == [1]
    assert Forget(held_out) in instructions


def test_roster_that_differs_from_the_record_is_refused() -> None:
    refused = Peer().get(Prepare(1, 0, 1, ((ME, (0,)),), (), 10))
    assert "accumulated []" in sent(refused, Refused)[0][1].reason


def test_lower_epoch_is_stale_and_higher_one_voids() -> None:
    peer = Peer()
    peer.forward(mb(0))
    assert Forget(mb(0)) in peer.get(Admit(2, 1, 0, "", -1, 0.0, ()))
    assert sent(peer.forward(mb(1)), Stale)
    assert peer.get(Admit(1, 2, 0, "", -1, 0.0, ())) == []


def test_higher_term_voids_what_was_accumulated() -> None:
    """A peer that was fenced, and comes back."""
    peer = Peer()
    peer.accumulate()
    assert ClearGradients() in peer.get(Admit(1, 2, 0, "", -1, 0.0, ()))
    refused = peer.get(Prepare(1, 0, 1, ((ME, (0,)),), (), 10))
    assert "accumulated []" in sent(refused, Refused)[0][1].reason


# ---------------------------------------------------------------------- recovery


def test_new_owner_asks_its_neighbours_for_what_it_lacks() -> None:
    peer = Peer()
    asked = peer.get(Recover(1, MB, (UP, ME, A), (1,)))
    assert sent(asked, GetFrame) == [
        (UP, GetFrame(1, MB, "output")),
        (A, GetFrame(1, MB, "gradient")),
    ]
    peer.get(Backward(1, MB, (UP, ME, A), (1,)), A)
    assert RunForward(MB) in peer.forward()
    computed = peer.computed()
    assert RunBackward(MB, True) in computed and not sent(computed, Forward)
    done = peer.feed(BackwardDone(MB, 1.0, 100))
    assert sent(done, Accumulated) and not sent(done, Backward), "the first stage has its own"


@pytest.mark.parametrize("kind", ["output", "gradient"])
def test_retained_frames_are_given_again(kind: FrameKind) -> None:
    peer = Peer()
    peer.accumulate()
    asker = A if kind == "output" else UP2
    given = peer.get(GetFrame(1, MB, kind), asker)
    [(to, message)] = sent(given, Forward if kind == "output" else Backward)
    assert to == asker


def test_gradient_goes_to_the_new_owner_once_it_is_there() -> None:
    peer = Peer()
    to = peer.pushed()
    peer.get(Backward(1, MB, (UP, ME, to), (0, 1, 2)), to)
    assert peer.get(GetFrame(1, MB, "gradient"), UP2) == []
    assert sent(peer.feed(BackwardDone(MB, 1.0, 100)), Backward)[0][0] == UP2


def test_frames_over_the_budget_are_dropped_and_not_given() -> None:
    peer = Peer(retain_bytes=0)
    done = peer.accumulate()
    assert DropFrames(MB) in done
    assert sent(peer.get(GetFrame(1, MB, "output"), A), NoFrame)


@pytest.mark.parametrize("failure", ["no frame", "lost", "unreachable"])
def test_owner_that_cannot_recover_releases(failure: str) -> None:
    peer = Peer()
    peer.get(Recover(1, MB, (UP, ME, A), (1,)))
    match failure:
        case "no frame":
            given_up = peer.get(NoFrame(1, MB, "output"), UP)
        case "lost":
            given_up = peer.feed(PeerLost(UP, "gone"))
        case _:
            given_up = peer.feed(SendFailed(UP, GetFrame(1, MB, "output")))
    [(_, released)] = sent(given_up, Released)
    assert released.microbatch == MB and Forget(MB) in given_up


def test_accumulated_microbatch_is_never_released() -> None:
    peer = Peer()
    peer.accumulate()
    assert sent(peer.get(Recover(1, MB, (UP, ME, A), (1,))), Accumulated)
    assert not sent(peer.get(NoFrame(1, MB, "output"), UP), Released)


@pytest.mark.parametrize("num_stages", [2, 3])
def test_given_up_microbatch_is_not_owned_again_by_a_repeated_word(num_stages: int) -> None:
    """Found by a soak: it was asked to recover twice, and accumulated what others owned by then."""
    peer = Peer(num_stages)
    recover = Recover(1, MB, (UP, ME, A)[:num_stages], (1,))
    peer.get(recover)
    assert sent(peer.get(NoFrame(1, MB, "output"), UP), Released)
    assert sent(peer.get(recover), Released), "the first may be lost"
    peer.forward(attempt=2)
    peer.get(recover)
    assert not any(isinstance(i, RunBackward) for i in peer.computed())
    assert MB not in peer.core.seat_core.accumulators.record


def test_given_up_microbatch_is_owned_again_by_a_new_grant() -> None:
    peer = Peer(num_stages=2)
    recover = Recover(1, MB, (UP, ME), (1,))
    peer.get(recover)
    peer.get(NoFrame(1, MB, "output"), UP)
    peer.forward(attempt=2)
    peer.computed()
    assert RunBackward(MB, True) in peer.get(Granted(1, MB, (UP, ME), (1,)))
    assert sent(peer.feed(BackwardDone(MB, 1.0, 100)), Accumulated)
    assert sent(peer.get(recover), Accumulated)


def test_given_up_microbatch_that_is_granted_to_other_stages_is_not_kept_silent_of() -> None:
    """Found by a soak: its other owner of this stage was lost, and the trainer asked for it for
    ever. It had been claimed once more, and granted for the stage before."""
    peer = Peer(num_stages=2)
    recover = Recover(1, MB, (UP, ME), (0, 1))
    peer.get(recover)
    peer.get(NoFrame(1, MB, "output"), UP)
    peer.forward(attempt=2)
    peer.computed()
    assert not peer.get(recover), "the claim says more"
    assert RunBackward(MB, False) in peer.get(Granted(1, MB, (UP, ME), (0,)))
    peer.feed(BackwardDone(MB, 1.0, 100))
    assert sent(peer.get(recover), Released)


def test_another_attempt_is_not_taken_and_forgotten() -> None:
    """Found by a soak: it came while the backward of an earlier one ran that had no frames left,
    was accepted, and forgotten; the trainer waited for it for 85 s."""
    peer = Peer(retain_bytes=0)
    to = peer.pushed()
    peer.get(Accepted(Work(MB, 1), 1.0, 0.0), to)
    assert RunBackward(MB, True) in peer.get(Backward(1, MB, (UP, ME, to), (0, 1, 2)), to)
    told = peer.get(Forward(Work(MB, 2), 1, (UP2,)), UP2)
    assert sent(told, Busy) and not sent(told, Accepted)


def test_what_is_owned_anew_is_computed_though_its_void_backward_still_runs() -> None:
    """Found by a soak: a device hung in the backward of an earlier admission. In the next one the
    peer took the microbatch for accumulated, and said nothing of it any more."""
    peer = Peer(num_stages=1, stage=0)
    peer.get(Recover(1, MB, (ME,), (0,)))
    assert RunBackward(MB, True) in peer.computed()
    peer.get(Admit(1, 2, 0, "initial", -1, 0.0, ()))
    assert KeepInput(MB) in peer.get(Recover(1, MB, (ME,), (0,)))
    assert peer.feed(BackwardDone(MB, 1.0, 100)) == [ClearGradients(), RunForward(MB)]
    assert RunBackward(MB, True) in peer.computed()
    [(_, receipt)] = sent(peer.feed(BackwardDone(MB, 1.0, 100)), Accumulated)
    assert receipt.term == 2


def test_change_of_the_record_voids_the_round_under_way() -> None:
    """What others add up must be what this peer sent at the beginning of the round."""
    peer = Peer()
    peer.get(Prepare(1, 0, 7, ((A, ()), (ME, ())), (), 10))
    assert DropRound(0, 7) in peer.accumulate()


def test_newcomer_follows_the_commits_that_it_misses_while_it_loads() -> None:
    peer = Peer()
    assert LoadState(3, (A,), "three") in peer.get(Admit(1, 2, 3, "three", -1, 0.0, (A,)))
    for step in (3, 4):
        peer.get(Prepare(1, step, step, ((A, (0,)),), (ME,), 10))
        kept = peer.get(Part(1, step, step, 0, True), A)
        assert KeepPart(A, step, step, 0, True, parts=1) in kept
        peer.get(Apply(1, step, step, 1.0, False))
    loaded = peer.feed(StateLoaded(3, "three"))
    assert CombineParts(3, 3, 1) in loaded
    assert StepOptimizer(3, 3, 1.0, False) in peer.feed(GradientCombined(3, 3, "", 1.0))
    assert CombineParts(4, 4, 1) in peer.feed(Stepped(4, "four"))
    assert StepOptimizer(4, 4, 1.0, False) in peer.feed(GradientCombined(4, 4, "", 1.0))
    assert sent(peer.feed(Stepped(5, "five")), Applied) == [(TRAINER, Applied(1, 5, "five"))]


def test_prepared_gradient_outlives_a_trainer_and_rolls_forward() -> None:
    peer = Peer()
    peer.get(Prepare(1, 0, 7, ((ME, ()),), (), 10))
    peer.feed(PartSummed(0, 7, 0))
    assert sent(peer.feed(GradientCombined(0, 7, "d", 1.0)), Prepared)
    peer.feed(PeerLost(TRAINER, "killed"))
    [(_, beacon)] = sent(peer.get(Hail(2)), Beacon)
    assert (beacon.version, beacon.prepared, beacon.state) == (0, 7, "joining")
    assert peer.get(Apply(2, 0, 6, 2.0, False)) == [], "another round's"
    assert StepOptimizer(0, 7, 2.0, False) in peer.get(Apply(2, 0, 7, 2.0, False))


# ---------------------------------------------------------------------- without a trainer


def test_a_peer_waits_for_a_trainer_that_is_gone_as_long_as_its_owner_says() -> None:
    for trainer_gone_s, stays in ((math.inf, True), (100.0, False)):
        peer = Peer(trainer_gone_s=trainer_gone_s)
        peer.feed(PeerLost(TRAINER, "its link broke"))
        peer.now += 99.0
        assert not any(isinstance(i, Stop) for i in peer.feed(DeadlinePassed("beacon")))
        peer.now += 2.0
        stops = [i for i in peer.feed(DeadlinePassed("beacon")) if isinstance(i, Stop)]
        assert bool(stops) != stays
        if stops:
            assert not stops[0].error and "gone for 101 s" in stops[0].reason


def test_a_trainer_that_comes_back_begins_the_time_anew() -> None:
    peer = Peer(trainer_gone_s=100.0)
    for _ in range(3):
        peer.feed(PeerLost(TRAINER, "its link broke"))
        peer.now += 90.0
        peer.get(Hail(1))
        assert not any(isinstance(i, Stop) for i in peer.feed(DeadlinePassed("beacon")))


def test_senders_do_not_all_choose_alike() -> None:
    """Ties between replicas that nothing is known of fall otherwise at each sender."""
    chosen = set()
    for number in range(8):
        peer = Peer(me=PeerId(f"sender {number}"))
        chosen.add(peer.pushed())
    assert chosen == {A, B}


def test_parts_of_void_rounds_do_not_stay() -> None:
    """The parts are of rounds that this peer never heard of, and of one that it took part in."""
    peer = Peer()
    peer.get(Part(1, 0, 1, 0, False), A)  # of a round that is void before its Prepare is here
    roster = ((ME, ()), (A, (0,)))
    begun = peer.get(Prepare(1, 0, 2, roster, (), 10))
    assert DropRound(0, 1) in begun
    assert not peer.get(Part(1, 0, 1, 1, False), A), "nothing more of it is kept"
    peer.accumulate()  # which voids the round under way
    assert not peer.get(Part(1, 0, 2, 0, False), A)


def test_step_is_skipped_once_nothing_of_it_runs() -> None:
    """What waits of it is dropped, what runs ends first, and nothing more of it is taken."""
    peer = Peer()
    peer.forward(mb(0))
    peer.forward(mb(1))
    began = peer.get(Prepare(1, 0, 5, ((ME, ()),), (), 0, True))
    assert Forget(mb(1)) in began and Forget(mb(0)) not in began
    assert not sent(began, Prepared), "one of it runs"
    [(_, prepared)] = sent(peer.computed(mb(0)), Prepared)
    assert prepared == Prepared(1, 0, 5, "", 0.0)
    assert sent(peer.forward(mb(2)), Stale)
    assert not peer.get(Recover(1, mb(3), (UP, ME, A), (1,)))
    assert StepOptimizer(0, 5, 0.0, False, True) in peer.get(Apply(1, 0, 5, 0.0, False))


def test_gradient_that_comes_too_late_does_not_void_the_skipping_of_its_step() -> None:
    peer = Peer()
    to = peer.pushed()
    peer.get(Backward(1, MB, (UP, ME, to), (0, 1, 2)), to)
    assert not sent(peer.get(Prepare(1, 0, 5, ((ME, ()),), (), 0, True)), Prepared)
    assert sent(peer.feed(BackwardDone(MB, 1.0, 100)), Prepared)
