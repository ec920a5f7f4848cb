"""Each guard of liveness is needed: where it is switched off, a story that ends well does not.

A guard stands beside the story which needs it. The stories are tests of their own, where they are
played with all guards; here they are played without one.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import Finish
from swarmrt.scheduler.fetching import fetch
from swarmrt.scheduler.fetching.donors import Donor
from swarmrt.scheduler.fetching.sharing import IN_ALL, Sharing
from swarmrt.scheduler.instructions import Instruction, Send, Stop, StopLoading
from swarmrt.scheduler.peer.membership.joining import Joining as PeersJoining
from swarmrt.scheduler.peer.membership.leaving import Leaving
from swarmrt.scheduler.peer.updating.sync.reducing import Reducing
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.queue import ComputeQueue
from swarmrt.scheduler.timing import estimate, link_rate
from swarmrt.scheduler.timing.link_rate import Direction
from swarmrt.scheduler.trainer.closing import comparing, holding, worth
from swarmrt.scheduler.trainer.closing.disputes import NotFinite, Unreachable
from swarmrt.scheduler.trainer.closing.holding import Holding
from swarmrt.scheduler.trainer.closing.missing import Missing
from swarmrt.scheduler.trainer.closing.sync import applying, round_patience
from swarmrt.scheduler.trainer.closing.sync.applying import Applying
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.round_patience import RoundPatience
from swarmrt.scheduler.trainer.course import settling
from swarmrt.scheduler.trainer.course.ending import EndOfRun
from swarmrt.scheduler.trainer.course.pace import Pace
from swarmrt.scheduler.trainer.course.resumption import Checkpointed, Plan
from swarmrt.scheduler.trainer.course.rollback import Rollback
from swarmrt.scheduler.trainer.membership import health, price
from swarmrt.scheduler.trainer.membership.conduct import Conduct
from swarmrt.scheduler.trainer.membership.fencing import watching
from swarmrt.scheduler.trainer.membership.fencing.draining import Draining
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.fencing.watching import Watching
from swarmrt.scheduler.trainer.membership.health import Health
from swarmrt.scheduler.trainer.membership.joining import admitting
from swarmrt.scheduler.trainer.membership.joining.beacons import Beacons
from swarmrt.scheduler.trainer.membership.joining.weights import Weights
from swarmrt.scheduler.trainer.membership.members import Member, Members, Membership
from swarmrt.scheduler.trainer.own_link import OwnLink
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.saving import Saving
from swarmrt.scheduler.trainer.work import failures as scheduler_failures
from swarmrt.scheduler.trainer.work.dispatch import Dispatch
from swarmrt.scheduler.trainer.work.failures import Failures
from swarmrt.scheduler.trainer.work.microbatches.claims import Claims
from swarmrt.scheduler.trainer.work.microbatches.finishing import Finishing
from swarmrt.scheduler.trainer.work.microbatches.releases import Releases
from swarmrt.scheduler.wiring import estimates
from swarmrt.scheduler.wiring.replicas import Absent
from swarmrt.scheduler.wiring.stochastic import Wiring
from swarmrt.sim.swarm import trainer as sim_trainer
from swarmrt.sim.swarm.trainer import Disk
from tests.scheduler.fetching import test_fetching as fetching
from tests.scheduler.peer import test_peer as peers
from tests.scheduler.timing import test_patience as patience
from tests.scheduler.trainer import test_paused as paused
from tests.scheduler.trainer.membership import test_health as beats
from tests.scheduler.trainer.membership import test_joining as joiners
from tests.scheduler.trainer.membership import test_newcomers as newcomers
from tests.scheduler.trainer.membership import test_price as prices
from tests.scheduler.trainer.work import test_failures as failures
from tests.scheduler.wiring import test_wiring as wirings
from tests.sim import test_draining as draining
from tests.sim import test_failures as failing
from tests.sim import test_going_back as going_back
from tests.sim import test_hangs as hangs
from tests.sim import test_hung_updates as hung_updates
from tests.sim import test_newcomers as at_home
from tests.sim import test_stalls as stalls
from tests.sim import test_stopping as stopping
from tests.sim import test_stories as stories
from tests.sim import test_swarm as swarms
from tests.trust import test_trainer as trainer

Off = Callable[[pytest.MonkeyPatch], None]
ENDS_BADLY = (AssertionError, RunError, ValueError)  # of a word that did not come, or came twice


def says(owner: Any, name: str, answer: Any) -> Off:
    """Let a method, or a function of a module, give the same answer whatever it is asked."""

    def off(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, lambda *_, **__: answer)

    return off


def has(owner: Any, name: str, value: Any) -> Off:
    """Let a constant or a property be another."""

    def off(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, value)

    return off


def around(owner: Any, name: str, instead: Callable[..., Any]) -> Off:
    """Let a method be another, which is given the original first."""

    def off(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **keys: instead(original, *args, **keys))

    return off


def forgets_that_it_was_left_out(
    reconcile: Callable[..., Any], beacons_: Beacons, member: Member, *rest: Any
) -> Any:
    member.left_out = None
    return reconcile(beacons_, member, *rest)


def goes_on_loading(left_out: Callable[..., Any], *args: Any) -> list[Instruction]:
    return [i for i in left_out(*args) if not isinstance(i, StopLoading)]


def counts_all_between_two_beacons_as_one(
    beacon: Callable[..., Any], self: Health, now: float, queued: int, done: int
) -> None:
    beacon(self, now, queued, self.done + min(1, done - self.done))


def looks_at_members_alone(
    look_after: Callable[..., Any], watching_: Watching, member: Member, now: float
) -> Any:
    return [] if member.state is Membership.SEEN else look_after(watching_, member, now)


def takes_whatever_comes_for_progress(
    came: Callable[..., Any], pace: Pace, what: Any, now: float
) -> None:
    pace.progress_at = now


def goes_back_to_the_checkpoint(
    choose: Callable[..., Any], holdings: Any, checkpoint: Checkpointed, *rest: Any
) -> Plan:
    return Plan(checkpoint.version, False, -1, 0.0, checkpoint.digests)


def sends_all_home(leave: Callable[..., Any], run: Run, reason: str) -> list[Instruction]:
    run.end()
    told = [Send(member.peer, Finish(reason)) for member in run.members]
    return [*told, Stop(reason, error=False)]


def draws_alike(init: Callable[..., None], self: Wiring, rng: Any, **keys: Any) -> None:
    init(self, random.Random(0), **keys)


def hang(what: str) -> Callable[[], None]:
    return partial(hangs.test_hang_is_found_out_and_the_others_go_on, what, *hangs.VICTIMS[0])


def counts_pauses(carried: Callable[..., None], self: Direction, *rest: Any) -> None:
    self.pauses = False
    carried(self, *rest)


def takes_it_for_looked_at(
    begin: Callable[..., None], patience_: RoundPatience, round_: PrepareRound, now: float
) -> None:
    begin(patience_, round_, now)
    patience_._has_looked = True


def learns_what_its_links_took(
    took: Callable[..., None], patience_: RoundPatience, round_: PrepareRound, now: float
) -> None:
    patience_._run.pace.round_time.add(now - round_.began_at)


def whom_no_other_rule_finds() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        hangs.test_whom_no_other_rule_finds_is_done_without_at_last(monkeypatch)


EVER_MORE = itertools.count()


class Guard(NamedTuple):
    off: Off
    story: Callable[[], None]


GUARDS: dict[str, Guard] = {
    # ------------------------------------------------------------ deadlines of this round
    "a round is waited for as long as its links need": Guard(
        says(worth, "carrying_s", 0.0),
        newcomers.test_a_round_is_waited_for_the_longer_the_slower_its_members_links_are,
    ),
    "doubling comes to minutes": Guard(
        has(estimate, "MOST_DOUBLED_S", 0.0),
        patience.test_doubling_comes_to_minutes_however_short_the_answers_were,
    ),
    "what others need says little of one": Guard(
        has(estimate, "UNKNOWN", 1),
        patience.test_what_others_need_says_little_of_one_who_has_not_answered_yet,
    ),
    "one late answer counts for twice its patience": Guard(
        has(estimate, "MOST_WAITED", 10**6),
        patience.test_an_hour_that_somebody_stood_still_does_not_make_patient_for_hours,
    ),
    "what moves is not sent again": Guard(
        says(worth, "moved_bytes", 0),
        newcomers.test_a_round_is_not_void_while_its_parts_move,
    ),
    "what does not move is sent again": Guard(
        around(worth, "moved_bytes", lambda *_: next(EVER_MORE)),
        newcomers.test_a_round_in_which_nothing_moves_is_repeated,
    ),
    "who makes rounds dear is left out": Guard(
        has(worth, "DEAR", 10**6),
        newcomers.test_who_makes_rounds_longer_than_it_is_worth_is_left_out_and_told,
    ),
    "who makes steps longer is left out": Guard(
        has(comparing, "LONGER", 10**6),
        partial(at_home.test_who_makes_steps_long_is_left_out_by_the_next_trainer_as_well, False),
    ),
    "what steps took is known after a resume": Guard(
        says(Disk, "told", ()),
        partial(at_home.test_who_makes_steps_long_is_left_out_by_the_next_trainer_as_well, True),
    ),
    "one dear round is no reason": Guard(
        has(worth, "DEAR", 1), newcomers.test_a_link_that_stalls_once_is_no_reason
    ),
    "the first bytes say nothing of a link": Guard(
        has(link_rate, "MEASURED_S", 0.0),
        newcomers.test_a_short_burst_says_nothing_and_a_slow_other_end_little,
    ),
    "a round goes on without whose link has become slow": Guard(
        says(worth, "longest_round_s", math.inf),
        at_home.test_whose_link_becomes_slow_in_a_round_is_left_out_of_it,
    ),
    "who has answered holds nobody up": Guard(
        around(PrepareRound, "named", lambda _, round_: Counter(round_.waits_for.values())),
        newcomers.test_who_holds_a_round_up_is_of_a_stage_that_has_not_answered,
    ),
    "what came to a stop is not slow": Guard(
        around(RoundPatience, "begin", takes_it_for_looked_at),
        newcomers.test_what_came_to_a_stop_is_missing_and_not_slow,
    ),
    "a link is no slower for the pauses of the other end": Guard(
        around(Direction, "carried", counts_pauses),
        newcomers.test_a_link_is_no_slower_for_the_pauses_of_the_other_end,
    ),
    # ------------------------------------------------------------ newcomers
    "a commit is held for a newcomer, a little": Guard(
        says(Holding, "is_held", False),
        newcomers.test_a_newcomer_that_has_its_state_and_could_keep_up_gets_the_time_of_a_gradient,
    ),
    "who cannot keep up is left out": Guard(
        says(Watching, "_is_too_slow", None),
        partial(newcomers.test_a_link_that_carries_no_gradient_in_a_step_is_told_so_at_once, 2),
    ),
    "who has missed too many steps is told": Guard(
        says(worth, "is_too_far_behind", False),
        partial(
            newcomers.test_commits_go_on_while_a_state_loads_and_when_too_many_have_gone_by_it_is_told,
            2,
        ),
    ),
    "who is left out rests": Guard(
        around(Conduct, "rest", lambda rest, self, peer, now, waited_s: 10.0),
        partial(newcomers.test_a_link_that_carries_no_gradient_in_a_step_is_told_so_at_once, 2),
    ),
    "the word that one is left out is said again": Guard(
        around(Beacons, "_reconcile", forgets_that_it_was_left_out),
        newcomers.test_who_has_not_heard_that_it_is_left_out_is_told_again,
    ),
    "who is left out loads no more": Guard(
        around(PeersJoining, "left_out", goes_on_loading),
        newcomers.test_who_is_left_out_while_it_loads_stops_and_tells_its_owner,
    ),
    "who is alone is never too slow": Guard(
        says(worth, "is_alone", False),
        at_home.test_who_cannot_is_let_in_all_the_same_where_nobody_else_is_left,
    ),
    "a newcomer keeps what it misses": Guard(
        around(
            Reducing,
            "begin",
            lambda begin, self, prepare: (
                [] if self._me in prepare.listeners else begin(self, prepare)
            ),
        ),
        peers.test_newcomer_follows_the_commits_that_it_misses_while_it_loads,
    ),
    "a commit is held for one newcomer a few times": Guard(
        has(holding, "MOST_HOLDS", 10**6),
        at_home.test_who_follows_while_it_loads_for_a_minute_holds_up_eight_commits_and_no_more,
    ),
    # ------------------------------------------------------------ saving
    "what is being saved keeps its copies": Guard(
        has(Saving, "leaves_room", True),
        stories.test_newcomers_do_not_take_the_copies_of_a_checkpoint_that_takes_a_minute_to_collect,
    ),
    "only what others are to get is copied": Guard(
        around(
            applying,
            "copied_stages",
            lambda _, run, *rest: frozenset(range(run.num_stages)),
        ),
        swarms.test_only_the_stage_that_a_newcomer_comes_to_copies_its_state,
    ),
    # ------------------------------------------------------------ whatever hangs
    "who is missing twice in rounds is done without": Guard(
        says(Missing, "again", []), hang("sums")
    ),
    "who is missing twice in updates is done without": Guard(
        says(Missing, "again", []),
        hung_updates.test_update_that_hangs_is_found_out_though_its_peer_has_nothing_else_to_do,
    ),
    "a computation that is late is found out": Guard(
        around(Health, "verdict", lambda verdict, self, now, most_s=0.0: "fine"), hang("backward")
    ),
    "where nobody has a sum, who is to blame is told": Guard(
        says(Members, "waits_for", PeerId("")), hang("slices and sums")
    ),
    "who was done without in vain is called again": Guard(
        says(RoundPatience, "_call_others", []),
        partial(
            hangs.test_innocent_one_is_called_again_when_the_other_is_late_alone,
            (2, 2),
            "s1p0",
            1,
        ),
    ),  # fmt: skip
    "who rests is called when the other one hangs": Guard(
        says(RoundPatience, "_lone_ones_beside_others", []),
        hangs.test_who_was_left_out_as_slow_is_called_back_when_the_other_one_hangs,
    ),
    "who is alone and heard is waited for": Guard(
        around(
            Watching,
            "_is_too_dear",
            lambda _, self, member, now: (
                member.health.late_s(now) > price.redo_s(self._run, member)
            ),
        ),
        partial(hangs.test_a_lone_replica_whose_device_hangs_is_waited_for, 0),
    ),
    "what is done again is no progress": Guard(
        around(Pace, "came", takes_whatever_comes_for_progress),
        hangs.test_a_run_that_nobody_can_go_on_with_ends_though_the_others_repeat_what_they_did,
    ),
    "of two that wait for each other the one that says so goes": Guard(
        has(round_patience, "blamed", lambda missing, _, trust: [max(missing, key=trust)]),
        hang("slices and sums"),
    ),
    "a computation is found out before a step was timed": Guard(
        has(admitting, "COMPUTATION_S", math.inf),
        hangs.test_computation_that_hangs_before_a_restarted_trainer_has_timed_any_is_found_out,
    ),
    "an update is not waited for where a newcomer has the version": Guard(
        says(Applying, "_late_beside_newcomers", []),
        hung_updates.test_update_that_hangs_is_done_without_where_a_newcomer_has_the_version,
    ),
    "whom no other rule finds is done without": Guard(
        says(EndOfRun, "_try_without", None),
        whom_no_other_rule_finds,
    ),
    "who rests is called though it was a slow one": Guard(
        says(RoundPatience, "_call_others", []),
        hangs.test_who_was_left_out_as_slow_is_called_back_when_the_other_one_hangs,
    ),
    "what is void is not accumulated": Guard(
        says(ComputeQueue, "is_started", True),
        peers.test_what_is_owned_anew_is_computed_though_its_void_backward_still_runs,
    ),
    "what is not answered is sent again": Guard(
        says(Dispatch, "unanswered", []),
        failures.test_what_the_first_stage_does_not_answer_is_sent_again_while_it_is_heard,
    ),
    "an attempt whose frames are gone is refused": Guard(
        says(Forwards, "_would_forget", False),
        peers.test_another_attempt_is_not_taken_and_forgotten,
    ),
    "what is accumulated and nobody owns is claimed again": Guard(
        says(Finishing, "_owns_it_after_all", None),
        hangs.test_what_was_given_up_and_then_accumulated_waits_for_no_late_flight,
    ),
    "updates are waited for anew once a late one is made": Guard(
        says(Applying, "_wait_anew", None),
        hung_updates.test_updates_that_hang_together_are_found_out_once_one_of_them_moves,
    ),
    "what a link took says nothing of a round without it": Guard(
        around(RoundPatience, "took", learns_what_its_links_took),
        hangs.test_who_hangs_after_a_slow_link_is_gone_is_waited_for_no_longer_than_the_others_need,
    ),
    "who does not go on keeps nobody from going back": Guard(
        says(Rollback, "_is_awaited", True),
        partial(
            going_back.test_who_hangs_in_an_update_and_is_cut_off_keeps_nobody_from_going_back,
            False,
        ),
    ),
    "a run that a newcomer could go on with is not given up": Guard(
        says(EndOfRun, "_lone_ones_beside_newcomers", []),
        partial(
            going_back.test_lone_replica_that_hangs_ends_no_run_that_a_newcomer_could_go_on_with,
            "update",
        ),
    ),
    # ------------------------------------------------------------ price
    "who is about to go on is waited for": Guard(
        says(Rollback, "_is_awaited", False),
        going_back.test_who_hangs_for_less_than_going_back_costs_is_waited_for,
    ),
    "a peer is waited for as long as its work takes": Guard(
        says(watching, "redo_s", 0.0),
        prices.test_peer_with_much_of_the_step_is_waited_for_as_long_as_that_takes,
    ),
    "two beacons may be lost": Guard(
        has(health, "LEAST_BEATS", 0), beats.test_nobody_is_given_up_for_what_happens_to_everybody
    ),
    "a computation may take six times as long once": Guard(
        has(health, "LEAST_COMPUTATIONS", 1),
        beats.test_nobody_is_given_up_for_what_happens_to_everybody,
    ),
    "computations are counted one by one": Guard(
        around(Health, "beacon", counts_all_between_two_beacons_as_one),
        beats.test_computations_between_two_beacons_are_counted_one_by_one,
    ),
    "one long absence counts for four": Guard(
        has(health, "MOST_DEADLINES", 10**6),
        beats.test_one_long_absence_does_not_make_patient_for_ever,
    ),
    "who is late gets nothing new before it is given up": Guard(
        has(health, "EARLY", 10**6), beats.test_silence_is_judged_by_how_often_it_was_heard
    ),
    # ------------------------------------------------------------ the directory and its weather
    "who was lost is not hailed because its record is there": Guard(
        around(Absent, "without", lambda _, self, peers, now: peers),
        joiners.test_who_was_lost_is_not_hailed_while_the_directory_still_names_it,
    ),
    # ------------------------------------------------------------ links
    "who hears nobody holds that against nobody": Guard(
        says(Watching, "_hears_nobody", False),
        partial(stalls.test_trainer_whose_own_radio_stalls_holds_that_against_nobody, 0),
    ),
    "what its own link delays is held against nobody": Guard(
        says(OwnLink, "look", None),
        stories.test_a_trainer_behind_half_a_megabit_knows_that_what_it_hears_is_late,
    ),
    "a checkpoint leaves room for words": Guard(
        has(sim_trainer, "UNHURRIED", IN_ALL),
        partial(
            stories.test_a_trainer_behind_two_megabits_that_collects_a_checkpoint_fences_nobody,
            (2, 2, 2),
            0.15,
        ),
    ),
    "of two that cannot reach each other one goes": Guard(
        says(Unreachable, "said", "nobody"),
        partial(trainer.test_cut_that_both_ends_tell_of_leaves_one_of_them_out, 1),
    ),
    # ------------------------------------------------------------ state transfer
    "what a slow donor owes in the end is asked of others": Guard(
        says(Sharing, "_hedge", []), fetching.test_the_last_chunks_are_not_left_to_the_slowest
    ),
    "donors that are away are waited for": Guard(
        has(fetch, "MOST_AWAY_S", 0.0),
        fetching.test_donors_that_are_away_are_waited_for_as_long_as_it_took_so_far,
    ),
    "what moves of a state is not asked for again": Guard(
        says(Donor, "looked_at", None), fetching.test_what_still_moves_is_not_asked_for_again
    ),
    "a donor whose link broke is asked again": Guard(
        around(Donor, "leave", lambda _, self, now: self.expel()),
        fetching.test_a_donor_that_was_away_goes_on_where_it_was,
    ),
    # ------------------------------------------------------------ stopping and resuming
    "a resumed run goes on from what peers hold": Guard(
        around(
            settling,
            "choose_version",
            goes_back_to_the_checkpoint,
        ),
        stopping.test_a_trainer_that_dies_between_the_last_update_and_its_checkpoint_goes_on_there,
    ),
    "peers keep what no checkpoint has": Guard(
        around(Run, "leave", sends_all_home),
        stopping.test_a_stop_while_a_resumed_trainer_hails_leaves_the_peers_with_what_they_hold,
    ),
    "a peer whose trainer is gone stays": Guard(
        around(PeersJoining, "trainer_lost", lambda *_: [Stop("the trainer is gone", error=False)]),
        stopping.test_a_trainer_that_dies_between_the_last_update_and_its_checkpoint_goes_on_there,
    ),
    "the last one of a stage may come whatever it has done": Guard(
        says(Fencing, "pardon_if_bare", None),
        joiners.test_the_only_one_that_is_left_of_a_stage_is_let_in_whatever_it_was_barred_for,
    ),
    # ------------------------------------------------------------ drains
    "a drain is taken back": Guard(
        says(Draining, "_stays", []), partial(draining.test_drain_one_lose_the_other, 0, 0)
    ),
    "a lone one stays": Guard(
        says(Draining, "_others_stay", True),
        draining.test_lone_replica_that_wants_to_leave_serves_to_the_end_if_nobody_comes,
    ),
    "who drains hears that it stays": Guard(
        around(Leaving, "drain", lambda drain, self, drains: drain(self, True)),
        draining.test_drain_that_is_taken_back_is_one_no_more,
    ),
    # ------------------------------------------------------------ one bad machine
    "a newcomer has the weights of the others": Guard(
        says(Weights, "are_those_of_the_others", True),
        trainer.test_newcomer_with_other_weights_does_not_end_the_run,
    ),
    "a share that is not finite is traced": Guard(
        says(NotFinite, "named", None),
        trainer.test_share_of_whose_slice_is_not_finite_is_computed_by_others,
    ),
    "a loss that is not finite is computed again": Guard(
        says(Claims, "_loss_is_not_finite", []),
        trainer.test_loss_that_is_not_finite_by_one_claimant_is_claimed_by_another,
    ),
    "who gave the gradient is done without first": Guard(
        says(Releases, "_goes_on_without_giver", False),
        failures.test_whoever_gave_a_gradient_that_nobody_can_use_is_done_without_first,
    ),
    "a step is skipped where its owner wants it": Guard(
        around(Run, "is_not_finite", lambda _, run, step, reason, *which: [run.give_up(reason)]),
        failing.test_newcomer_and_a_trainer_that_is_killed_get_over_a_skipped_step,
    ),
    "what works now and then is not hopeless": Guard(
        says(Failures, "worked", None),
        failures.test_a_stage_that_computes_now_and_then_goes_on,
    ),
    "what fails with all that it is given is hopeless": Guard(
        has(scheduler_failures, "MORE", 10**6),
        failures.test_a_stage_that_can_compute_nothing_ends_the_run_soon,
    ),
    "what is not open cannot fail": Guard(
        says(Run, "is_open", True), failures.test_failures_with_what_is_not_open_do_not_count
    ),
    # ------------------------------------------------------------ small ones
    "the listener's own sleep is nobody's fault": Guard(
        says(Watching, "notice_sleep", None),
        prices.test_beacon_that_waited_while_the_trainer_slept_is_no_late_one,
    ),
    "senders draw their own ties": Guard(
        around(Wiring, "__init__", draws_alike), peers.test_senders_do_not_all_choose_alike
    ),
    "parts of void rounds do not stay": Guard(
        says(Reducing, "_void_early", []), peers.test_parts_of_void_rounds_do_not_stay
    ),
    "what is no time enters no mean": Guard(
        has(estimates, "MOST_S", float("inf")),
        partial(wirings.test_what_is_no_time_enters_no_mean, float("inf")),
    ),
    "who is gone leaves the view": Guard(
        around(Watching, "_look_after", looks_at_members_alone),
        paused.test_who_was_only_seen_leaves_the_view_when_it_is_gone,
    ),
    "a claim names replicas of their own stages": Guard(
        says(Members, "is_astray", False),
        trainer.test_claim_names_replicas_of_their_own_stages_alone,
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_each_guard_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = GUARDS[name]
    with monkeypatch.context() as mutated, pytest.raises(ENDS_BADLY):
        guard.off(mutated)
        guard.story()
