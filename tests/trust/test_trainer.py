"""What the trainer believes: no peer's word alone ends a run, holds it up, or makes it wrong."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Beacon,
    Claim,
    Evaluated,
    Forward,
    Granted,
    Hail,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Released,
)
from swarmrt.scheduler.events import CheckpointSaved, DeadlinePassed, Expelled, PeerLost, PeersSeen
from swarmrt.scheduler.instructions import (
    Expel,
    ReportEvaluation,
    ReportExpelled,
    ReportPeer,
    ReportStall,
    Send,
)
from swarmrt.scheduler.trainer.membership.conduct import WAITED_FOR
from swarmrt.scheduler.trainer.membership.members import MOST_SEEN
from swarmrt.scheduler.trainer.work.microbatches.releases import MOST_RELEASES
from tests.scheduler.trainer_core import TOKENS, Habit, Swarm, bends, silent_about

LIAR = "s1p9"  # joins stage 1
HUGE = 2**64 - 1


def honest_swarm_with(habit: Habit | None = None, loads: bool = True, **settings: Any) -> Swarm:
    """At version 3, one more peer comes to stage 1."""
    swarm = Swarm(**settings)
    swarm.run_to(3)
    swarm.join(LIAR, 1, habit, loads)
    return swarm


def run_on(swarm: Swarm, seconds: float = 30.0) -> int:
    """How many versions are committed in that time."""
    before = swarm.version
    swarm.run(seconds)
    assert not swarm.ended_with_error
    return swarm.version - before


def assert_only_the_liar_was_fenced(swarm: Swarm) -> None:
    assert set(swarm.fenced()) <= {LIAR}, swarm.fenced()


# ---------------------------------------------------------------------- one word ends a run (D1)


def test_newcomer_with_other_weights_does_not_end_the_run() -> None:
    swarm = honest_swarm_with(bends(Ready, digest="other"))
    assert run_on(swarm) > 100
    assert not swarm.is_ready(LIAR)
    assert any("weights" in reason for reason in swarm.reasons(LIAR))
    assert_only_the_liar_was_fenced(swarm)


def test_whoever_contradicts_the_known_weights_twice_is_expelled() -> None:
    swarm = honest_swarm_with(bends(Ready, digest="other"))
    run_on(swarm)
    assert swarm.expelled() == [LIAR] and swarm.fenced() == {LIAR: 2}


def test_at_version_0_the_majority_of_those_that_are_ready_counts() -> None:
    swarm = Swarm((0, 0), needed=(2, 1))
    swarm.join("s1p0", 1)
    swarm.join("s0p9", 0, lambda m: [replace(m, digest="x") if isinstance(m, Ready) else m])
    swarm.run(1.0)
    assert swarm.is_ready("s0p9"), "nothing is known yet, so the first one is believed"
    swarm.join("s0p0", 0)
    swarm.run(1.0)
    assert not swarm.is_ready("s0p0") and "software" in swarm.reasons("s0p0")[0]
    swarm.join("s0p1", 0)
    swarm.run(3.0)
    assert swarm.is_ready("s0p0") and swarm.is_ready("s0p1")
    assert "s0p9" in swarm.fenced() and swarm.version > 0


def test_replica_that_has_applied_something_else_is_fenced_by_majority() -> None:
    swarm = Swarm((2, 3, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Applied, digest="other")
    assert run_on(swarm) > 100
    assert set(swarm.fenced()) == {"s1p0"}
    assert all(report.digests_equal for report in swarm.steps())


def test_of_two_replicas_that_differ_one_goes_on() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Applied, digest="other")
    assert run_on(swarm) > 100
    assert set(swarm.fenced()) <= {"s1p0", "s1p1"} and swarm.fenced()


# ---------------------------------------------------------------------- holding up a run (D2, P8)


def test_newcomer_that_never_loads_holds_nobody_up() -> None:
    swarm = honest_swarm_with(loads=False, latency_s=0.1)
    assert run_on(swarm, 1500.0) > 1500
    usual_s = statistics.median(gaps(swarm))
    assert max(gaps(swarm)) < 2.5 * usual_s, "a commit is held for a step at the most"
    rests = [told.rest_s for told in swarm.peers[PeerId(LIAR)].left_out]
    assert 3 <= len(rests) <= 8 and rests == sorted(rests), "and it rests for longer each time"
    assert_only_the_liar_was_fenced(swarm)


def gaps(swarm: Swarm) -> list[float]:
    """Seconds between one commit and the next."""
    times = [at for at, told in swarm.told if type(told).__name__ == "ReportStep"]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


@pytest.mark.parametrize("kind", [Accumulated, Prepared, Applied, Claim, Beacon])
def test_only_replica_that_stands_still_is_named_within_a_minute_or_two(
    kind: type[Message],
) -> None:
    """Nobody can take its place; so people are told, long before the run is given up."""
    stage = 2 if kind is Claim else 1
    swarm = Swarm((2, 1, 1))
    swarm.run_to(3)
    name = f"s{stage}p0"
    keeps = (Accumulated, Prepared, Applied, Claim, Refused, Released)
    swarm.peers[PeerId(name)].habit = silent_about(*(keeps if kind is Beacon else (kind,)))
    swarm.run(100.0)
    told = [report for _, report in swarm.told if isinstance(report, ReportStall)]
    assert told and all(name in report.awaited for report in told), told
    assert len(told) <= 2, "once a minute"


def test_rising_done_counter_is_no_progress() -> None:
    """The stall watch speaks, though beacons say that much is being done."""
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    for peer in swarm.peers.values():
        peer.habit = busy_liar()
    swarm.run(400.0)
    assert any(isinstance(told, ReportStall) for _, told in swarm.told)


def test_newcomers_are_no_progress() -> None:
    """Another one is ready each minute, under another name, while nothing comes of the step."""
    silent = silent_about(Accumulated, Claim)
    swarm = Swarm((1, 1))
    for peer in swarm.peers.values():
        peer.habit = silent
    for number in range(1, 8):
        swarm.run(60.0)
        swarm.join(f"s1p{number}", 1, silent)
    assert any(isinstance(told, ReportStall) for _, told in swarm.told)


def busy_liar() -> Habit:
    count = 0

    def habit(message: Message) -> list[Message]:
        nonlocal count
        count += 1
        return [replace(message, done=count)] if isinstance(message, Beacon) else []

    return habit


def test_a_pause_is_no_stall() -> None:
    """A stage's only replica is gone for two hours, and comes again in the same step."""
    swarm = Swarm((1, 1), microbatches=2, latency_s=0.1)
    swarm.run_to(3)
    peer = swarm.peers[PeerId("s1p0")]
    for _ in range(2):
        del swarm.peers[peer.name]
        swarm.feed(PeerLost(peer.name, "cut"))
        swarm.run(7200.0)
        assert not swarm.ended_with_error
        peer.state = "joining"
        swarm.peers[peer.name] = peer
        swarm.begin_beacons(peer)
        swarm.run(0.3)
    assert run_on(swarm, 400.0) > 10


def test_an_hour_of_sleep_is_no_stall() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    swarm.sleep(3600.0)
    assert run_on(swarm) > 100


@pytest.mark.parametrize("kind", [Prepared, Applied, Accumulated])
def test_member_that_keeps_silent_about_one_thing_is_found_out(kind: type[Message]) -> None:
    swarm = Swarm(latency_s=0.1)
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = silent_about(kind)
    swarm.run(600.0)
    assert not swarm.ended_with_error
    assert swarm.version > 300
    assert set(swarm.fenced()) == {"s1p0"}


def test_who_made_all_wait_for_its_work_does_not_do_so_again_at_once() -> None:
    """Of what it takes nothing comes: for several times as long it is not given anything."""
    swarm = Swarm((2, 2))
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = silent_about(Claim)
    took_s = 0.0
    while not swarm.fenced():
        swarm.run(0.1)
        took_s += 0.1
    assert took_s > 1.0
    swarm.run(WAITED_FOR * (took_s - 1.0))
    assert not swarm.is_ready("s1p0") and set(swarm.fenced()) == {"s1p0"}


def test_who_refuses_every_round_is_barred_for_longer_each_time() -> None:
    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Prepared):
            return [message]
        return [Refused(message.epoch, message.step, message.round, "no", PeerId(""))]

    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = habit
    steps = run_on(swarm, 60.0)
    assert steps > 300
    assert 0 < swarm.fenced()["s1p0"] < 12
    assert set(swarm.fenced()) == {"s1p0"}


def accuses(victim: str, swarm: Swarm | None = None) -> Habit:
    """Always, or while the victim is on the roster."""

    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Prepared) or (swarm and not is_on_roster(swarm, victim)):
            return [message]
        key = (message.epoch, message.step, message.round)
        return [Refused(*key, f"{victim} cannot be reached", PeerId(victim))]

    return habit


def repeats(habit: Habit, times: int) -> Habit:
    return lambda message: [*habit(message)] * times


def is_on_roster(swarm: Swarm, name: str) -> bool:
    round_ = swarm.core.run.round
    return round_ is not None and PeerId(name) in round_.members


def test_one_members_word_does_not_fence_another() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = accuses("s1p1")
    assert run_on(swarm, 60.0) > 300
    assert set(swarm.fenced()) == {"s1p0"}


@pytest.mark.parametrize("times", [1, 2])
def test_cut_that_both_ends_tell_of_leaves_one_of_them_out(times: int) -> None:
    """However often they say so."""
    swarm = Swarm()
    swarm.run_to(3)
    cut: dict[str, Habit] = {
        "s1p0": accuses("s1p1", swarm),
        "s1p1": accuses("s1p0", swarm),
    }
    for name, habit in cut.items():
        swarm.peers[PeerId(name)].habit = repeats(habit, times)
    swarm.run_to(swarm.version + 1, limit_s=60.0)
    for name in cut:
        swarm.peers[PeerId(name)].habit = lambda message: [message]
    assert run_on(swarm) > 100
    assert sum(swarm.fenced().values()) == 1
    assert swarm.is_ready("s1p0") and swarm.is_ready("s1p1"), "whoever it was, it is back"


def test_two_that_cannot_reach_a_third_are_believed() -> None:
    swarm = Swarm((2, 3, 2))
    swarm.run_to(3)
    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].habit = accuses("s1p2")
    swarm.run(0.1)
    assert set(swarm.fenced()) == {"s1p2"}


def gets_unfit_parts_of(swarm: Swarm, *senders: str) -> Habit:
    """It says so of whichever of them takes part."""

    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Prepared):
            return [message]
        key = (message.epoch, message.step, message.round)
        there = (name for name in senders if is_on_roster(swarm, name))
        of = next(there, "")
        return [Refused(*key, "it has 3 values", unfit=PeerId(of))] if of else [message]

    return habit


def test_of_two_that_differ_on_a_part_the_one_that_was_there_first_stays() -> None:
    swarm = honest_swarm_with()
    swarm.run_to(swarm.version + 3)
    swarm.peers[PeerId(LIAR)].habit = gets_unfit_parts_of(swarm, "s1p1")
    assert run_on(swarm) > 100
    assert_only_the_liar_was_fenced(swarm)


def test_whoever_differs_with_all_others_on_their_parts_is_the_one_to_go() -> None:
    swarm = Swarm((2, 3, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = gets_unfit_parts_of(swarm, "s1p1", "s1p2")
    assert run_on(swarm) > 100
    times = swarm.fenced()
    assert times["s1p0"] > 2 and sum(times.values()) - times["s1p0"] <= 1


# ---------------------------------------------------------------------- not finite (D8)


def test_norm_that_one_replica_says_is_not_finite_is_its_own_fault() -> None:
    swarm = Swarm((2, 3, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Prepared, squared_norm=math.nan)
    assert run_on(swarm) > 100
    assert set(swarm.fenced()) == {"s1p0"}


def names_as_not_finite(swarm: Swarm, culprit: str) -> Habit:
    """A part's owner: it says so whenever the culprit has contributed."""

    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Prepared):
            return [message]
        round_ = swarm.core.run.round
        rosters = round_.rosters if round_ is not None else ()
        if not any(peer == culprit and indices for roster in rosters for peer, indices in roster):
            return [message]
        key = (message.epoch, message.step, message.round)
        return [Refused(*key, "not finite", PeerId(""), PeerId(culprit))]

    return habit


def test_share_of_whose_slice_is_not_finite_is_computed_by_others() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p1")].habit = names_as_not_finite(swarm, "s1p0")
    assert run_on(swarm) > 100
    assert set(swarm.fenced()) == {"s1p0"}


def test_gradient_that_is_not_finite_whoever_computes_it_ends_the_run_with_their_names() -> None:
    swarm = Swarm((1, 2))
    swarm.run_to(3)
    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].habit = bends(Prepared, squared_norm=math.nan)
    swarm.run(60.0)
    reason = swarm.ended_with_error
    assert "not finite at stage 1" in reason and "s1p0" in reason and "s1p1" in reason
    assert "microbatch" in reason


def test_loss_that_is_not_finite_by_one_claimant_is_claimed_by_another() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s2p0")].habit = bends(Claim, loss_sum=math.nan)
    assert run_on(swarm) > 100
    fenced = swarm.fenced()
    liar = fenced.pop("s2p0")
    assert sum(fenced.values()) < liar, "others may be silent while what it took is sent again"
    assert all(math.isfinite(report.loss) for report in swarm.steps())


def test_loss_that_is_not_finite_by_whatever_route_ends_the_run() -> None:
    swarm = Swarm((2, 1))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Claim, loss_sum=math.inf)
    swarm.run(60.0)
    assert "loss" in swarm.ended_with_error and "s1p0" in swarm.ended_with_error


# ---------------------------------------------------------------------- false numbers (G)


@pytest.mark.parametrize("tokens", [-TOKENS, 0, HUGE, TOKENS + 1])
def test_wrong_number_of_tokens_is_no_claim(tokens: int) -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s2p0")].habit = bends(Claim, tokens=tokens)
    assert run_on(swarm) > 100
    assert all(report.tokens == 6 * TOKENS for report in swarm.steps())
    assert swarm.expelled() == ["s2p0"]


def test_loss_below_what_is_possible_is_no_claim() -> None:
    swarm = Swarm(least_loss=0.0)
    swarm.run_to(3)
    swarm.peers[PeerId("s2p0")].habit = bends(Claim, loss_sum=-1.0)
    run_on(swarm)
    assert swarm.expelled() == ["s2p0"]
    swarm = Swarm()  # of a model whose loss may be anything
    swarm.run_to(3)
    swarm.peers[PeerId("s2p0")].habit = bends(Claim, loss_sum=-1.0)
    run_on(swarm)
    assert not swarm.expelled() and not swarm.fenced()


@pytest.mark.parametrize("squared_norm", [1e-12, 1e30])
def test_false_norm_of_the_first_on_the_roster_does_not_count(squared_norm: float) -> None:
    swarm = Swarm((2, 3, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Prepared, squared_norm=squared_norm)
    run_on(swarm)
    assert set(swarm.fenced()) == {"s1p0"}
    assert all(report.norm == math.sqrt(3) for report in swarm.steps())


def test_norms_whose_sum_overflows_freeze_nothing() -> None:
    swarm = Swarm((2, 1, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Prepared, squared_norm=1.7e308)
    swarm.run(10.0)
    assert all(report.norm == math.sqrt(3) for report in swarm.steps())


@pytest.mark.parametrize("service_s", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("field", ["service_s", "backlog_s"])
def test_times_that_are_none_are_not_believed(field: str, service_s: float) -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s0p0")].habit = bends(Accepted, **{field: service_s})
    run_on(swarm, 1.0)
    assert swarm.expelled() == ["s0p0"]


@pytest.mark.parametrize("service_s", [math.nan, math.inf, -1.0, 5e-324, 1e-9])
def test_speeds_that_nobody_has_are_not_believed(service_s: float) -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s0p0")].habit = bends(Beacon, service_s=service_s)
    run_on(swarm, 1.0)
    assert swarm.expelled() == ["s0p0"]


# ---------------------------------------------------------------------- who may say what (C3)


def evaluation(swarm: Swarm, loss_sum: float = 0.001) -> list[Evaluated]:
    version, epoch = swarm.version, swarm.core.run.epoch
    works = [Work(MicrobatchId(version, i, held_out=True), 1) for i in range(2)]
    return [Evaluated(work, epoch, loss_sum, TOKENS) for work in works]


@pytest.mark.parametrize("who", ["stranger", "s0p0", "s1p1"])
def test_held_out_loss_counts_from_the_last_stage_alone(who: str) -> None:
    swarm = Swarm(eval_every=1)
    for name in ("s2p0", "s2p1"):
        swarm.peers[PeerId(name)].habit = silent_about(Evaluated)
    swarm.run(2.0)
    swarm.say("stranger", Beacon(1, 0, 2, "joining", 0, "v0", -1, -1, 0.0, 0, 0, 0.0))
    for message in evaluation(swarm):
        swarm.say(who, message)
    swarm.run(2.0)
    assert not [told for _, told in swarm.told if isinstance(told, ReportEvaluation)]


def test_held_out_loss_of_what_was_never_sent_does_not_count() -> None:
    swarm = Swarm(eval_every=1, eval_microbatches=2)
    swarm.run_to(3)
    for message in evaluation(swarm):
        swarm.say("s2p0", replace(message, work=Work(message.work.microbatch, 99)))
    swarm.run(1.0)
    losses = [told.loss for _, told in swarm.told if isinstance(told, ReportEvaluation)]
    assert losses and all(loss == 3.0 for loss in losses)


def test_held_out_loss_is_not_finite_only_if_two_say_so() -> None:
    swarm = Swarm(eval_every=1)
    swarm.run_to(3)
    swarm.peers[PeerId("s2p0")].habit = bends(Evaluated, loss_sum=math.nan)
    run_on(swarm)
    losses = [told.loss for _, told in swarm.told if isinstance(told, ReportEvaluation)]
    assert len(losses) > 100 and all(loss == 3.0 for loss in losses)


def test_claim_names_replicas_of_their_own_stages_alone() -> None:
    """Else a peer of another stage owns what it can never accumulate."""
    swarm = Swarm((2, 1, 2))
    swarm.run_to(3)

    def habit(message: Message) -> list[Message]:
        if isinstance(message, Claim):
            first, _, last = message.route
            return [replace(message, route=(first, PeerId("s0p1"), last))]
        return [message]

    swarm.peers[PeerId("s2p0")].habit = habit
    assert run_on(swarm) > 100
    assert not any(
        isinstance(told, Send)
        and isinstance(told.message, Granted)
        and told.message.path[1] == "s0p1"
        for _, told in swarm.told
    ), "such a route is refused"


def test_claim_of_what_was_never_sent_is_stale() -> None:
    swarm = Swarm((1, 1), microbatches=6)
    swarm.run_to(3)
    swarm.peers[PeerId("s0p0")].habit = silent_about(Accepted)
    route = (PeerId("s0p0"), PeerId("s1p0"))
    for attempt in (-1, 0, 99, HUGE):
        work = Work(MicrobatchId(swarm.version, 5), attempt)
        answer = swarm.say("s1p0", Claim(work, 1, route, 1.0, TOKENS))
        assert [type(i.message).__name__ for i in answer if isinstance(i, Send)] == ["Stale"]


def test_what_one_claims_who_was_fenced_meanwhile_goes_again_at_once() -> None:
    """It was on its way to the last stage, and nobody else knows of it; it is late by minutes where
    steps have been long. A claim of an attempt that is not the newest changes nothing."""
    swarm = Swarm((1, 2), microbatches=1)
    swarm.run_to(3)
    fenced, works = PeerId("s1p0"), list[Work]()

    def goes_astray(message: Message) -> list[Message]:
        if isinstance(message, Claim):
            works.append(message.work)
            return []
        return [message]

    for peer in (fenced, PeerId("s1p1")):
        swarm.peers[peer].habit = goes_astray
    while not works:
        swarm.run(0.01)
    swarm.core.run.charge(fenced, "it is to be fenced", "cut")
    swarm.feed(DeadlinePassed("none"))
    assert not swarm.is_ready(fenced)
    work, route = works[0], (PeerId("s0p0"), fenced)

    def forwards_after(attempt: int) -> list[int]:
        claim = Claim(Work(work.microbatch, attempt), 1, route, 1.0, TOKENS)
        sent = [i.message for i in swarm.say(fenced, claim) if isinstance(i, Send)]
        return [m.work.attempt for m in sent if isinstance(m, Forward)]

    assert forwards_after(work.attempt) == [work.attempt + 1]
    assert forwards_after(work.attempt) == [], "it is not the newest any more"
    assert forwards_after(work.attempt + 1) == [], "it was sent after that one was fenced"


def test_receipt_for_another_stage_does_not_count() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    swarm.peers[PeerId("s0p0")].habit = bends(Accumulated, stage=1)
    version = swarm.version
    swarm.run(2.0)
    assert swarm.version <= version + 1


def test_beacon_that_names_another_stage_fences_its_sender() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = bends(Beacon, stage=2)
    run_on(swarm, 5.0)
    assert set(swarm.fenced()) == {"s1p0"}
    assert not swarm.is_ready("s1p0") or swarm.core.run.members.ready(2)


def test_strangers_that_send_beacons_are_bounded_in_number() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    for number in range(3 * MOST_SEEN):
        beacon = Beacon(1, 0, 1, "leaving", 0, "", -1, -1, 0.0, 0, 0, 0.0)
        swarm.say(f"stranger{number}", beacon)
    assert len(list(swarm.core.run.members)) <= MOST_SEEN + 6
    assert run_on(swarm) > 100


def in_view(swarm: Swarm) -> set[PeerId]:
    """Return whom people see."""
    seen: set[PeerId] = set()
    for _, told in swarm.told:
        if isinstance(told, ReportPeer):
            (seen.discard if told.state == "lost" else seen.add)(told.peer)
    return seen


def test_whoever_is_forgotten_or_expelled_leaves_peoples_view() -> None:
    """Of strangers only so many are remembered, whoever they say that they are."""
    swarm = Swarm()
    swarm.run_to(3)
    for number in range(MOST_SEEN + 50):
        beacon = Beacon(1, 0, 1, "leaving", 0, "", -1, -1, 0.0, 0, 0, 0.0)
        swarm.say(f"stranger{number}", beacon)
    swarm.run(0.5)
    assert in_view(swarm) == {member.peer for member in swarm.core.run.members}
    last = PeerId(f"stranger{MOST_SEEN + 49}")
    assert last in in_view(swarm)
    swarm.feed(Expelled(last, "its invitation was revoked"))
    assert last not in in_view(swarm)


def test_owner_that_gives_up_all_that_it_owns_is_done_without() -> None:
    """Whatever it was offered: the least loaded one would get it again at once."""

    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Accumulated):
            return [message]
        return [Released(message.epoch, message.term, message.microbatch, "no")]

    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = habit
    assert run_on(swarm) > 50
    assert set(swarm.fenced()) == {"s1p0"}


def test_only_replica_of_a_stage_may_give_up_as_often_as_it_must() -> None:
    """Where no frames are retained it has to, and to fence it would void all that it has done."""
    left = Counter[MicrobatchId]()

    def habit(message: Message) -> list[Message]:
        if not isinstance(message, Accumulated) or left[message.microbatch] > 2 * MOST_RELEASES:
            return [message]
        left[message.microbatch] += 1
        return [Released(message.epoch, message.term, message.microbatch, "no frame of it is left")]

    swarm = Swarm((2, 1, 2))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p0")].habit = habit
    version = swarm.core.run.version
    swarm.run_to(version + 2)
    assert max(left.values()) > 2 * MOST_RELEASES and swarm.fenced() == {}


# ---------------------------------------------------------------------- expelled


def test_whoever_is_expelled_is_never_seen_again() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    told = swarm.feed(Expelled(PeerId("s1p0"), "its invitation was revoked"))
    assert any(isinstance(i, ReportExpelled) for i in told)
    assert not any(isinstance(i, Expel) for i in told), "the owner knows"
    assert run_on(swarm) > 100
    told = swarm.feed(PeersSeen(1, (PeerId("s1p0"), PeerId("s1p1"))))
    assert not [i for i in told if isinstance(i, Send) and isinstance(i.message, Hail | Admit)]
    assert swarm.core.run.members.get(PeerId("s1p0")) is None
    assert not [i for _, i in swarm.told if isinstance(i, Send) and i.to == "s1p0"][-1:] or (
        last_word_to(swarm, "s1p0") < 1.0
    )


def last_word_to(swarm: Swarm, name: str) -> float:
    return max(at for at, told in swarm.told if isinstance(told, Send) and told.to == name)


def test_expelling_the_last_replica_of_a_stage_pauses_the_run() -> None:
    swarm = Swarm((2, 1))
    swarm.run_to(3)
    swarm.feed(Expelled(PeerId("s1p0"), "its invitation was revoked"))
    swarm.run(5.0)
    version = swarm.version
    swarm.join("s1p1", 1)
    swarm.run(5.0)
    assert swarm.version != version and not swarm.ended_with_error


# ---------------------------------------------------------------------- hostile integers


@pytest.mark.parametrize("value", [HUGE, 2**63, -(2**63), -1, 2**40])
def test_huge_and_negative_numbers_raise_nothing(value: int) -> None:
    swarm = Swarm(eval_every=1, checkpoint_every=2)
    swarm.run_to(3)
    beacon = replace(swarm.peers[PeerId("s1p0")].beacon(), state="leaving")
    fields = ("epoch", "term", "stage", "version", "prepared", "applied", "queued", "done")
    for field in fields:
        for sender in ("s1p0", "stranger"):
            swarm.say(sender, replace(beacon, **{field: value}))
    microbatch = MicrobatchId(value, value)
    for sender in ("s0p0", "s1p0", "s2p0", "stranger"):
        swarm.say(sender, Ready(1, value, value, "d"))
        swarm.say(sender, Claim(Work(microbatch, value), 1, (), 0.0, value))
        swarm.say(sender, Evaluated(Work(microbatch, value), 1, 0.0, value))
        swarm.say(sender, Accumulated(1, value, microbatch, value))
        swarm.say(sender, Prepared(1, value, value, "", 0.0))
        swarm.say(sender, Refused(1, value, value, "", PeerId("")))
        swarm.say(sender, Applied(1, value, ""))
    assert run_on(swarm) > 50


def test_saved_version_that_nobody_asked_for_changes_nothing() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.feed(CheckpointSaved(999))
    assert swarm.core.run.saving.version == 0


def test_prepare_names_only_replicas_of_the_stage() -> None:
    swarm = honest_swarm_with()
    run_on(swarm, 5.0)
    for _, told in swarm.told:
        if isinstance(told, Send) and isinstance(told.message, Prepare):
            stages = {str(peer)[1] for peer, _ in told.message.roster}
            assert len(stages) == 1


# ---------------------------------------------------------------------- where a resumed run goes on


def test_strangers_do_not_decide_where_a_resumed_run_goes_on() -> None:
    swarm = Swarm((0, 0, 0), needed=(1, 1, 1), resume=True, epoch=2, checkpoint_every=10)
    for stage in range(3):
        peer = swarm.join(f"s{stage}p0", stage)
        peer.epoch, peer.version, peer.digest, peer.applied = 1, 20, "v20", 77
        liar = swarm.join(f"s{stage}p9", stage, bends(Beacon, version=999, applied=90))
        liar.epoch, liar.digest = 1, "x"
    swarm.run(5.0)
    assert 20 <= swarm.version < 200
    assert set(swarm.core.run.members.ready(0)) >= {"s0p0"}


# ---------------------------------------------------------------------- the next stage's gradients


def test_gradients_that_are_not_finite_come_from_the_stage_after() -> None:
    """Whoever at stage 1 computes what the liar at stage 2 owns has a gradient that is not."""
    swarm = Swarm()
    swarm.run_to(3)

    def habit(message: Message) -> list[Message]:
        round_ = swarm.core.run.round
        if not isinstance(message, Prepared) or round_ is None:
            return [message]
        is_bad = bool(dict(round_.rosters[2]).get(PeerId("s2p0")))
        return [replace(message, squared_norm=math.nan) if is_bad else message]

    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].habit = habit
    run_on(swarm)
    assert swarm.version > 50
    assert swarm.fenced()["s2p0"] > 0
    conduct = swarm.core.run.conduct
    assert conduct.faults(PeerId("s2p0")) > max(conduct.faults(PeerId(p)) for p in ("s1p0", "s1p1"))
