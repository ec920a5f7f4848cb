"""Nobody waits for a newcomer; who is too slow is told so; what moves is waited for."""

from __future__ import annotations

import statistics
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Admit,
    Apply,
    Beacon,
    LeftOut,
    Message,
    Part,
    Prepare,
    Prepared,
    Ready,
)
from swarmrt.scheduler.events import GradientCombined, Moved, StateLoaded, UpdateJoined
from swarmrt.scheduler.following import ALWAYS_BYTES, LEAST_STATES, LEAST_STEPS, MOST_STEPS, Store
from swarmrt.scheduler.instructions import (
    DropRound,
    Instruction,
    LoadState,
    ReportLeftOut,
    ReportRecovery,
    Send,
    StepOptimizer,
    StopLoading,
)
from swarmrt.scheduler.timing.link_rate import BUFFERS_BYTES, LinkRate
from swarmrt.scheduler.trainer.closing.holding import MOST_HOLDS
from tests.scheduler.peer_core import ME, Peer, sent
from tests.scheduler.trainer_core import Habit, Swarm, silent_about
from tests.trust.test_trainer import gaps

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
NEWCOMER = "s1p9"
STEP_S = 1.2


def swarm_with_newcomer(replicas: int = 2, gradient_s: float = 0.0) -> Swarm:
    """It has come, and its state is on its way."""
    swarm = Swarm((2, replicas, 2), latency_s=0.1)
    swarm.run_to(5)
    newcomer = swarm.join(NEWCOMER, 1, loads=False)
    newcomer.gradient_s = gradient_s
    swarm.run_to(7)
    return swarm


def void_rounds(swarm: Swarm) -> int:
    reports = [told for _, told in swarm.told if isinstance(told, ReportRecovery)]
    return sum(report.what == "void round" for report in reports)


# ---------------------------------------------------------------------- newcomers


@pytest.mark.parametrize("replicas", [1, 2])
def test_commits_go_on_while_a_state_loads_and_when_too_many_have_gone_by_it_is_told(
    replicas: int,
) -> None:
    swarm = swarm_with_newcomer(replicas)
    swarm.run(15.0)
    (told,) = swarm.peers[PeerId(NEWCOMER)].left_out
    assert told.what == "state" and told.takes_s > LEAST_STEPS * told.step_s > 0
    assert max(gaps(swarm)) < 2.5 * statistics.median(gaps(swarm))


def test_small_gradients_let_a_newcomer_miss_more_steps() -> None:
    assert Store(1 << 30, 3 << 30).most_steps(by_owners=False) == LEAST_STEPS
    assert Store(0, 0).most_steps(by_owners=False) == MOST_STEPS
    assert Store(10 << 20, 30 << 20).most_steps(by_owners=False) == 25


@given(st.integers(0, 1 << 40), st.integers(1, 9), st.booleans())
def test_what_a_newcomer_keeps_is_bounded_in_bytes(size: int, rows: int, by_owners: bool) -> None:
    store = Store(size, rows * size)
    step_bytes = store.step_bytes(by_owners=by_owners)
    most = max(
        ALWAYS_BYTES, rows * size, LEAST_STEPS * size, LEAST_STATES * rows * size * by_owners
    )
    assert store.most_steps(by_owners=by_owners) * step_bytes <= most
    assert store.bound_bytes(by_owners=by_owners) <= most + step_bytes
    assert store.most_steps(by_owners=by_owners) >= (LEAST_STATES if by_owners else LEAST_STEPS)


@pytest.mark.parametrize("by_owners", [False, True])
@pytest.mark.parametrize("bits", [32, 16, 8])
def test_a_newcomer_keeps_no_more_than_that_whatever_its_trainer_asks(
    bits: int, by_owners: bool
) -> None:
    exact_bytes, state_bytes = 1 << 30, 3 << 30
    wire_bytes = exact_bytes * bits // 32
    peer = Peer(gradient_bytes=exact_bytes, wire_bytes=wire_bytes, update_bytes=state_bytes)
    store = peer.core.seat.store
    kept = 0
    for step in range(30):
        peer.get(Prepare(1, step, step, ((A, (0,)),), (ME,), 10, by_owners=by_owners))
        kept += peer.reducing.round(step) is not None
    kept_bytes = kept * store.step_bytes(by_owners=by_owners)
    assert kept >= store.most_steps(by_owners=by_owners)
    assert kept_bytes <= store.bound_bytes(by_owners=by_owners)
    if bits < 32 and not by_owners:
        assert kept_bytes < LEAST_STEPS * exact_bytes, "less than as many sums of float32"


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_link_that_carries_no_gradient_in_a_step_is_told_so_at_once(replicas: int) -> None:
    swarm = swarm_with_newcomer(replicas, gradient_s=31.2)
    (told,) = swarm.peers[PeerId(NEWCOMER)].left_out
    assert (told.what, told.takes_s) == ("link", 31.2) and 0 < told.step_s < 2 * STEP_S
    swarm.run(told.rest_s - 1)
    assert len(swarm.peers[PeerId(NEWCOMER)].left_out) == 1, "it is not tried again before that"
    assert max(gaps(swarm)) < 1.5 * statistics.median(gaps(swarm))


def test_who_has_not_heard_that_it_is_left_out_is_told_again() -> None:
    swarm = swarm_with_newcomer()
    newcomer = swarm.peers[PeerId(NEWCOMER)]
    del swarm.peers[newcomer.name]  # what the trainer says now is lost
    newcomer.gradient_s = 31.2
    swarm.say(NEWCOMER, newcomer.beacon())
    swarm.run(1.0)
    assert not newcomer.left_out and swarm.fenced() == {NEWCOMER: 1}
    swarm.peers[newcomer.name] = newcomer
    swarm.speak(newcomer, [newcomer.beacon()])
    swarm.run(0.5)
    assert [told.what for told in newcomer.left_out] == ["link"]


def test_the_only_one_of_its_stage_is_never_too_slow() -> None:
    swarm = Swarm((1, 1), latency_s=0.1)
    swarm.run_to(5)
    for peer in swarm.peers.values():
        peer.gradient_s = 1000.0
    swarm.run_to(10)
    assert not swarm.fenced()


def test_a_newcomer_that_has_its_state_and_could_keep_up_gets_the_time_of_a_gradient() -> None:
    swarm = swarm_with_newcomer(gradient_s=0.5)
    usual_s = statistics.median(gaps(swarm))
    newcomer = swarm.peers[PeerId(NEWCOMER)]
    newcomer.state, newcomer.version = "serving", newcomer.version  # it has come to that version
    swarm.speak(newcomer, [newcomer.beacon()])
    before = swarm.version
    swarm.run(20.0)
    held = [gap for gap in gaps(swarm)[before:] if gap > usual_s + 0.3]
    assert held and max(gaps(swarm)) < usual_s + 0.5 + 0.2
    assert len(held) <= MOST_HOLDS


def test_a_newcomer_takes_part_as_soon_as_it_has_applied_what_the_others_have() -> None:
    swarm = swarm_with_newcomer()
    newcomer = swarm.peers[PeerId(NEWCOMER)]
    newcomer.version, newcomer.digest = swarm.version, f"v{swarm.version}"
    newcomer.state = "serving"
    newcomer.habit = lambda message: [] if isinstance(message, Ready) else [message]
    swarm.run_to(swarm.version + 2)
    last = swarm.steps()[-1]
    assert NEWCOMER in dict(last.digests[1]), "though no beacon has come since"


# ---------------------------------------------------------------------- rounds


def moving(swarm: Swarm, name: str, seconds: float) -> Habit:
    """It has the gradient so late, and till then its parts move."""
    peer = swarm.peers[PeerId(name)]

    def move() -> None:
        peer.moved_bytes += 1000
        swarm.after(0.4, move)

    move()
    return late(swarm, name, seconds)


def late(swarm: Swarm, name: str, seconds: float) -> Habit:
    """It has the gradient so late."""

    def habit(message: Message) -> list[Message]:
        if isinstance(message, Prepared):
            swarm.after(seconds, partial(_say, swarm, name, message))
            return []
        return [message]

    return habit


def _say(swarm: Swarm, name: str, message: Message) -> None:
    swarm.say(name, message)


def test_a_round_is_not_void_while_its_parts_move() -> None:
    """It takes forty times as long as rounds did; nothing is sent again."""
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = moving(swarm, "s1p0", 8.0)
    swarm.run_to(22)
    assert void_rounds(swarm) == 0 and not swarm.fenced()


def test_a_round_in_which_nothing_moves_is_repeated() -> None:
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = silent_about(Prepared)
    swarm.run(4.0)
    assert void_rounds(swarm) >= 1


def test_who_makes_rounds_longer_than_it_is_worth_is_left_out_and_told() -> None:
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = moving(swarm, "s1p0", 5.0)
    swarm.peers[PeerId("s1p0")].waits_for = PeerId("s1p1")
    swarm.peers[PeerId("s1p1")].waits_for = PeerId("s1p0")
    swarm.core.run.members.get(PeerId("s1p0")).term += 10  # type: ignore[union-attr]
    swarm.peers[PeerId("s1p0")].term += 10
    swarm.run_to(24)
    (told,) = swarm.peers[PeerId("s1p0")].left_out
    assert told.what == "round" and told.takes_s > 5 and told.step_s < 3
    assert set(swarm.fenced()) == {"s1p0"}


def test_who_holds_a_round_up_is_of_a_stage_that_has_not_answered() -> None:
    """Found by a soak: the members of a stage that was done had waited for each other before, and
    one of them was left out for what another stage took."""
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    for name, other in (("s0p0", "s0p1"), ("s0p1", "s0p0"), ("s1p1", "s1p0")):
        swarm.peers[PeerId(name)].waits_for = PeerId(other)
    swarm.core.run.members.get(PeerId("s0p1")).term += 10  # type: ignore[union-attr]
    swarm.peers[PeerId("s0p1")].term += 10
    swarm.peers[PeerId("s1p0")].habit = moving(swarm, "s1p0", 1000.0)
    swarm.run(30.0)
    assert set(swarm.fenced()) == {"s1p0"}
    assert [told.what for told in swarm.peers[PeerId("s1p0")].left_out] == ["round"]


def test_what_came_to_a_stop_is_missing_and_not_slow() -> None:
    """The round's parts moved at first. The link by which a round is waited for is slow, so it is
    longer under way than it is worth when it is looked at for the first time."""
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].gradient_s = 10.0
        swarm.say(name, swarm.peers[PeerId(name)].beacon())
    hung, other = swarm.peers[PeerId("s1p0")], swarm.peers[PeerId("s1p1")]
    hung.waits_for = other.waits_for = hung.name
    for peer in (hung, other):
        peer.habit = silent_about(Prepared)
    swarm.run(0.5)
    hung.moved_bytes += 1000
    swarm.run(100.0)
    told = [told for _, told in swarm.told if isinstance(told, ReportRecovery)]
    fenced = [recovery.reason for recovery in told if recovery.what == "fenced"]
    assert fenced and "s1p0: the reduce waited for it again and again" in fenced[0]


def test_a_link_that_stalls_once_is_no_reason() -> None:
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    slow = swarm.peers[PeerId("s1p0")]
    slow.habit = moving(swarm, "s1p0", 5.0)
    swarm.peers[PeerId("s1p1")].waits_for = PeerId("s1p0")
    swarm.run_to(21)
    slow.habit = lambda message: [message]
    swarm.run_to(40)
    assert not swarm.fenced()


def test_a_round_is_waited_for_the_longer_the_slower_its_members_links_are() -> None:
    """Nobody says that anything moves: beacons may be lost."""
    swarm = Swarm(latency_s=0.05)
    swarm.run_to(20)
    swarm.peers[PeerId("s1p0")].habit = late(swarm, "s1p0", 7.0)
    for name in ("s1p0", "s1p1"):
        swarm.peers[PeerId(name)].gradient_s = 4.0
        swarm.say(name, swarm.peers[PeerId(name)].beacon())
    swarm.run_to(swarm.version + 2)
    assert void_rounds(swarm) == 0


# ---------------------------------------------------------------------- a peer's link


def test_a_link_is_as_fast_as_what_it_carries_while_there_is_something_to_carry() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    for tick in range(40):  # 2 MB/s for 10 s, then nothing is awaited for 10 s
        now = tick / 2
        awaited = "state" if now <= 10 else None
        link.moved(Moved(int(2e6 * min(now, 10.0)), 0, 0), awaited, now)
    assert link.gradient_s == pytest.approx(5.0)
    assert link.moved_bytes == 20_000_000


def test_the_slower_way_counts() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    for tick in range(20):
        now = tick / 2
        link.moved(Moved(int(4e6 * now), int(0.5e6 * now), 1), 7, now)
    assert link.gradient_s == pytest.approx(20.0)


def test_a_short_burst_says_nothing_and_a_slow_other_end_little() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    for tick in range(5):
        link.moved(Moved(int(4e6 * tick / 2), 0, 0), "state", tick / 2)
    assert link.gradient_s == 0.0, "not yet"
    for tick in range(5, 12):
        link.moved(Moved(int(4e6 * tick / 2), 0, 0), "state", tick / 2)
    fast_s = link.gradient_s
    for tick in range(12, 32):  # a round with somebody who is ten times as slow
        link.moved(Moved(int(22e6 + 0.4e6 * (tick - 11) / 2), 0, 0), 3, tick / 2)
    assert fast_s < link.gradient_s < 1.1 * fast_s


def test_a_link_is_no_slower_for_the_pauses_of_the_other_end() -> None:
    """Found by a soak: whoever waited for one that hung seemed to have a slow link from then on,
    and rounds were waited for as long as that would take."""
    link = LinkRate(gradient_bytes=10_000_000)
    for tick in range(81):  # 2 MB/s for a second, and then nothing for three
        now, came_s = tick / 2, tick // 8 + min(tick % 8 / 2, 1.0)
        link.moved(Moved(int(2e6 * came_s), 0, 0), 7, now)
    assert link.gradient_s == pytest.approx(5.0, rel=0.1)


SLOW, FAST = PeerId("slow"), PeerId("fast")


def gives(link: LinkRate, seconds: float, *, slow_rate: float, burst_bytes: int) -> None:
    """Let a state go to one peer at this rate, if any, and each 10 s so many bytes to another one,
    within half a second."""
    bursts = 0
    for tick in range(1, int(2 * seconds) + 1):
        slow = (SLOW, int(slow_rate * tick / 2), 1 if slow_rate else 0)
        is_burst = burst_bytes > 0 and tick % 20 == 0
        bursts += is_burst
        fast = (FAST, bursts * burst_bytes, 0)
        links = ((slow,) if slow_rate else ()) + ((fast,) if is_burst else ())
        if links:
            link.moved(Moved(0, slow[1] + fast[1], slow[2], links), None, tick / 2)


def test_a_donor_is_not_as_slow_as_the_slowest_that_it_gives_to() -> None:
    """A donor gives a state to a peer behind 0.4 MB/s, and now and then its parts of rounds to
    another."""
    link = LinkRate(gradient_bytes=10_000_000)
    gives(link, 100.0, slow_rate=0.4e6, burst_bytes=BUFFERS_BYTES + 8_000_000)
    assert link.gradient_s == pytest.approx(10 / 16, rel=0.05)


def test_what_only_fills_buffers_says_nothing_of_a_link() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    gives(link, 100.0, slow_rate=0.4e6, burst_bytes=4_000_000)
    assert link.gradient_s == pytest.approx(10 / 0.8, rel=0.1), "of both together"


def test_what_went_before_it_measures_anew_says_nothing_of_a_link() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    gives(link, 20.0, slow_rate=0.4e6, burst_bytes=50_000_000)
    link.forget()
    link.moved(Moved(0, 8_400_000, 1, ((SLOW, 8_400_000, 1), (FAST, 100_000_000, 0))), None, 20.5)
    for tick in range(42, 60):
        gone = int(0.2e6 * tick)
        link.moved(Moved(0, gone, 1, ((SLOW, gone, 1),)), None, tick / 2)
    assert link.gradient_s == pytest.approx(25.0, rel=0.1)


def test_who_gives_to_slow_ones_alone_may_be_slow_itself() -> None:
    link = LinkRate(gradient_bytes=10_000_000)
    gives(link, 20.0, slow_rate=0.4e6, burst_bytes=0)
    assert link.gradient_s == pytest.approx(25.0, rel=0.1)


def test_bursts_alone_make_no_link_slow() -> None:
    """Half a second is as short as is told: what went in it may have gone in no time."""
    link = LinkRate(gradient_bytes=10_000_000)
    gives(link, 100.0, slow_rate=0.0, burst_bytes=400_000)
    assert link.gradient_s == 0.0


# ---------------------------------------------------------------------- a peer that is left out


def loading() -> Peer:
    peer = Peer()
    assert _only(peer.get(Admit(1, 2, 7, "d", 3, 1.0, (A,))), LoadState)
    return peer


def _only(instructions: list[Instruction], kind: type[Instruction]) -> list[Instruction]:
    return [instruction for instruction in instructions if isinstance(instruction, kind)]


def test_who_is_left_out_while_it_loads_stops_and_tells_its_owner() -> None:
    peer = loading()
    told = peer.get(LeftOut(1, 2, "link", 31.2, 1.5, 60.0))
    assert _only(told, StopLoading)
    assert _only(told, ReportLeftOut) == [ReportLeftOut(1000, 0.0, "link", 31.2, 1.5, 60.0)]
    assert peer.core.seat.state == "joining"
    late = peer.feed(StateLoaded(7, "d"))
    assert not sent(late, Ready), "it comes too late"
    assert _only(peer.get(Admit(1, 3, 9, "e", 5, 1.0, (A,))), LoadState)


def test_who_is_left_out_of_rounds_voids_its_work() -> None:
    peer = Peer()
    peer.accumulate()
    assert peer.core.seat_core.accumulators.record
    told = peer.get(LeftOut(1, 1, "round", 31.2, 1.5, 60.0))
    assert _only(told, ReportLeftOut) and not _only(told, StopLoading)
    assert not peer.core.seat_core.accumulators.record and peer.core.seat.state == "joining"


def test_what_is_said_of_an_earlier_admission_or_by_others_counts_for_nothing() -> None:
    peer = loading()
    assert peer.get(LeftOut(1, 1, "link", 31.2, 1.5, 60.0)) == []
    assert peer.get(LeftOut(1, 2, "link", 31.2, 1.5, 60.0), A) == []
    assert peer.get(LeftOut(1, 2, "link", float("nan"), 1.5, 60.0)) == []
    assert peer.core.seat.state == "loading"


def test_a_newcomer_follows_what_it_misses_though_its_sums_come_late() -> None:
    peer = loading()
    for step in range(7, 7 + LEAST_STEPS):
        peer.get(Prepare(1, step, 10 + step, ((A, (0,)),), (ME,), 10))
        peer.get(Apply(1, step, 10 + step, 1.0, False))
    assert not sent(peer.feed(StateLoaded(7, "d")), Prepared)
    assert peer.core.seat.is_serving and peer.reducing.round(7) is not None


@pytest.mark.parametrize("by_owners", [False, True])
@pytest.mark.parametrize("agreed", ["given", "another", ""])
def test_a_newcomer_that_was_given_other_parts_than_the_others_applies_nothing(
    by_owners: bool, agreed: str
) -> None:
    """It gets the state once more, and nobody holds it against it."""
    peer = loading()
    peer.feed(StateLoaded(7, "d"))
    peer.get(Prepare(1, 7, 17, ((A, (0,)),), (ME,), 10, by_owners=by_owners))
    peer.get(Part(1, 7, 17, 0, True, by_owners), A)
    peer.feed(UpdateJoined(7, 17, "given") if by_owners else GradientCombined(7, 17, "given", 1.0))
    told = peer.get(Apply(1, 7, 17, 1.0, False, agreed))
    if agreed != "another":
        assert _only(told, StepOptimizer)
        return
    assert not _only(told, StepOptimizer) and _only(told, DropRound) == [DropRound(7, 17)]
    ((_, beacon),) = sent(told, Beacon)
    assert (beacon.state, beacon.version, beacon.digest) == ("joining", 7, "d")
    assert _only(peer.get(Admit(1, 3, 9, "e", 5, 1.0, (A,))), LoadState)


@pytest.mark.parametrize("by_owners", [(), (1,)])
def test_apply_names_what_the_stage_has_agreed_on(by_owners: tuple[int, ...]) -> None:
    swarm = Swarm(latency_s=0.05, by_owners=by_owners)
    swarm.run_to(3)
    applies = [(i.to, i.message) for _, i in swarm.told if isinstance(i, Send)]
    named = {(to[:2], m.step, m.digest) for to, m in applies if isinstance(m, Apply)}
    letters = ["u" if stage in by_owners else "g" for stage in range(3)]
    assert named >= {
        (f"s{n}", step, f"{c}{step}") for n, c in enumerate(letters) for step in (0, 1)
    }
    assert len(named) == 3 * len({step for _, step, _ in named})
