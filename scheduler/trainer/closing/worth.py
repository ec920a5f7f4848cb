"""The cost of a member's link to the others, and whether it is worth that.

Rules:
- A newcomer follows the steps that it misses. If a gradient takes longer over its link than the
  others take for a step it never catches up; if too many have gone by, it keeps no more of them.
- A member takes part in rounds, which wait for the slowest link. Who makes them so long, again and
  again, that steps are longer by half than without it is left out.
- Who is alone in its stage is not.
"""

from __future__ import annotations

from collections.abc import Set

from swarmrt.ids import SeatId
from swarmrt.scheduler.following import Store
from swarmrt.scheduler.timing.times import LEAST_DEAR_S, LONGEST_ROUND_S, UNTIMED_ROUND_S
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

WAYS = 2  # a gradient goes to its owners in slices, and comes back in sums, or the other way round
SLACK = 1.5  # times as long as without it may a step take with a member
DEAR = 2  # rounds that take longer, one after the other: a link may stall once


def is_alone(run: Run, member: Member) -> bool:
    """Return whether the stage has no ready replica beside this one."""
    return not run.has_others(member.peer, member.stage)


def is_too_far_behind(run: Run, newcomer: Member) -> bool:
    """Return whether it cannot keep what it misses any more."""
    return behind(run, newcomer) >= most_missed(run, newcomer)


def behind(run: Run, newcomer: Member) -> int:
    return run.version - newcomer.reached


def most_missed(run: Run, newcomer: Member) -> int:
    """Return how many steps a newcomer may miss, by the size of its stage's gradients as they
    travel. The ready replicas say that, who have to keep what it has not taken yet."""
    ready = run.members.of_stage(newcomer.stage, Membership.READY)
    sizes = (member.beacon.gradient_bytes for member in ready if member.beacon is not None)
    gradient_bytes = max(sizes, default=0)
    store = Store(gradient_bytes, int(run.settings.state_gradients * gradient_bytes))
    return store.most_steps(by_owners=newcomer.stage in run.by_owners)


def following_s(run: Run, newcomer: Member) -> float:
    """Return how long it takes over its link what a step gives it to follow: a gradient, or where
    owners update the state that they have made; 0 while that is not known."""
    is_state = newcomer.stage in run.by_owners
    return newcomer.gradient_s * (run.settings.state_gradients if is_state else 1.0)


def is_link_too_slow(run: Run, newcomer: Member) -> bool:
    """Return whether following a step takes longer over its link than the others take for one."""
    step_s = run.pace.step_time.mean_s
    return bool(step_s) and following_s(run, newcomer) > step_s


def step_without_s(run: Run, member: Member) -> float:
    """Return the seconds of a step without this ready member; 0 while that is not known."""
    replicas = len(run.members.ready(member.stage))
    others_work_s = run.pace.work_time.mean_s * replicas / max(1, replicas - 1)
    return max(member.step_before_s, others_work_s)


def slowest(run: Run, round_: PrepareRound) -> Member | None:
    """Return whom the round waits for by the word of most who wait, and could do without. Of two
    that wait for each other it is who says so itself, else who came last: both see the same slow
    path."""
    named = round_.named()
    members = [m for peer in named if (m := run.members.get(peer)) is not None]
    members = [m for m in members if not is_alone(run, m)]

    def rank(member: Member) -> tuple[int, bool, tuple[int, int, SeatId]]:
        peer = member.peer
        return named[peer], run.members.waits_for(peer) == peer, run.trust(peer)

    return max(members, key=rank, default=None)


def least_worth(run: Run, peers: Set[SeatId]) -> Member | None:
    """Return whom to do without of those who may have made steps longer: rather not one that is
    alone in its stage, else the one with the slowest link, else who came last."""
    members = [m for peer in peers if (m := run.members.get(peer)) is not None]

    def rank(member: Member) -> tuple[bool, float, tuple[int, int, SeatId]]:
        return not is_alone(run, member), member.gradient_s, run.trust(member.peer)

    return max(members, key=rank, default=None)


def carrying_s(run: Run, round_: PrepareRound) -> float:
    """Return how long parts of a round are on their way, by what is known of its links."""
    found = 0.0
    for stage, (roster, listeners) in enumerate(zip(round_.rosters, round_.listeners, strict=True)):
        members = [m for peer, _ in roster if (m := run.members.get(peer)) is not None]
        made = run.settings.state_gradients if stage in round_.by_owners else 0.0
        if len(members) > 1 or made:
            link_s = max((member.gradient_s for member in members), default=0.0)
            each = len(listeners) / max(1, len(members))
            found = max(found, (WAYS + made + (made or 1.0) * each) * link_s)
    return found


def most_round_s(run: Run, member: Member) -> float:
    """Return how long rounds with this member may take: steps are longer by half at the most."""
    step_s = step_without_s(run, member)
    return (
        max(LEAST_DEAR_S, SLACK * step_s - run.pace.work_time.mean_s) if step_s else UNTIMED_ROUND_S
    )


def longest_round_s(run: Run, round_: PrepareRound) -> float:
    """Return how long a round may take, while its parts move, before it goes without somebody."""
    if not run.pace.step_time.samples:
        return UNTIMED_ROUND_S
    members = [m for peer in round_.members if (m := run.members.get(peer)) is not None]
    most_listeners = max(map(len, round_.listeners))
    step_s = max(step_without_s(run, member) for member in members)
    made = run.settings.state_gradients if round_.by_owners else 0.0
    return max(LONGEST_ROUND_S, 2 * (WAYS + made + (made or 1.0) * most_listeners) * step_s)


def moved_bytes(run: Run, round_: PrepareRound) -> int:
    """Return what has come to the members of the stages that hold a round up, and gone from them,
    by their own word."""
    late = {round_.members[peer] for peer in round_.missing()}
    members = (run.members.get(peer) for peer, stage in round_.members.items() if stage in late)
    return sum(m.beacon.moved_bytes for m in members if m is not None and m.beacon is not None)
