"""Replicas are spread over islands, stay where they are, and work elsewhere while theirs has too
few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import NO_ISLAND, MicrobatchId, PeerId, SeatId
from swarmrt.messages import Leaving, Message, Standing
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import Instruction, ReportIslands, Send
from swarmrt.scheduler.trainer.membership.islands import Replica, spread
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.work.entrances import Entrances
from tests.scheduler.trainer_core import Swarm, member_of, silent_about

MOST = 4
ISLANDS = st.integers(-1, MOST - 1)
STAGES = st.lists(st.lists(ISLANDS, max_size=7), min_size=1, max_size=4)


def named(stages: list[list[int]]) -> list[list[Replica]]:
    return [
        [Replica(SeatId(f"s{stage}p{place}"), island) for place, island in enumerate(islands)]
        for stage, islands in enumerate(stages)
    ]


def spread_of(
    most: int, stages: list[list[Replica]]
) -> tuple[list[list[Replica]], list[Counter[int]]]:
    """Return the replicas of each stage with their new islands, and how many each island has."""
    islands = spread(most, stages)
    placed = [[one._replace(island=islands[one.seat]) for one in stage] for stage in stages]
    return placed, [Counter(one.island for one in stage) for stage in placed]


@given(STAGES, st.integers(1, MOST))
def test_each_island_has_an_even_share_of_each_stage(stages: list[list[int]], most: int) -> None:
    placed, counts = spread_of(most, named(stages))
    used = {island for count in counts for island in count}
    assert len(used) <= most and used <= set(range(MOST))
    if all(stages):
        assert len(used) == min(most, *map(len, stages))
        for count in counts:
            assert set(count) == used, "no island lacks a stage"
            assert max(count.values()) - min(count.values()) <= 1
    again, _ = spread_of(most, placed)
    assert again == placed, "nobody moves without need"


@given(STAGES, st.integers(1, MOST), st.data())
def test_who_goes_moves_one_of_its_stage_or_ends_an_island(
    stages: list[list[int]], most: int, data: st.DataObject
) -> None:
    placed, counts = spread_of(most, named(stages))
    everybody = [one for stage in placed for one in stage]
    if not everybody:
        return
    gone = data.draw(st.sampled_from(everybody))
    left = [[one for one in stage if one != gone] for stage in placed]
    after, counts_after = spread_of(most, left)
    moved = sum(
        old != new
        for stage, anew in zip(left, after, strict=True)
        for old, new in zip(stage, anew, strict=True)
    )
    if all(left) and set(counts[0]) == set(counts_after[0]):
        assert moved <= 1


@given(STAGES, st.integers(1, MOST), st.data())
def test_who_asks_for_an_island_gets_it_as_long_as_each_has_one(
    stages: list[list[int]], most: int, data: st.DataObject
) -> None:
    asking = [
        [one._replace(asks=one.island != NO_ISLAND and data.draw(st.booleans())) for one in stage]
        for stage in named(stages)
    ]
    placed, counts = spread_of(most, asking)
    used = {island for count in counts for island in count}
    for stage, count, wished in zip(placed, counts, asking, strict=True):
        assert not all(stages) or set(count) == used, "no island lacks a stage"
        denied = [one for one, wish in zip(stage, wished, strict=True) if wish.asks and one != wish]
        for one in denied:
            alone = len(used) > 1 and count[one.island] == 1
            wish = next(other.island for other in wished if other.seat == one.seat)
            assert wish not in used or alone, "it is needed where it is"


# ---------------------------------------------------------------------- in a run


def swarm_of(*replicas: int, islands: int = 2) -> Swarm:
    swarm = Swarm(replicas, latency_s=0.05, islands=islands)
    swarm.run_to(3)
    return swarm


def where(swarm: Swarm) -> dict[str, int]:
    """Return in which island each replica works."""
    ready = swarm.core.run.members.in_state(Membership.READY)
    return {str(member.peer): member.island for member in ready}


def moves(told: Iterable[Instruction]) -> list[ReportIslands]:
    return [one for one in told if isinstance(one, ReportIslands)]


def givers_know(swarm: Swarm) -> bool:
    """Return whether each replica has been told last, of each of the next stage, that it is near
    just where both work in one island."""
    islands, words = where(swarm), dict[tuple[str, str], bool]()
    for _, told in swarm.told:
        match told:
            case Send(to, Standing(peer=peer, serving=True, near=near)):
                words[to, peer] = near
    stages = {name: int(name[1]) for name in islands}
    pairs = [(a, b) for a in islands for b in islands if stages[a] + 1 == stages[b]]
    return all(words[pair] == (islands[pair[0]] == islands[pair[1]]) for pair in pairs)


def lose(swarm: Swarm, name: str) -> list[Instruction]:
    del swarm.peers[PeerId(name)]
    return swarm.feed(PeerLost(PeerId(name), "killed"))


@pytest.mark.parametrize("replicas", [(2, 2, 2), (3, 2, 4), (4, 5, 4)])
def test_run_begins_with_its_replicas_spread(replicas: tuple[int, ...]) -> None:
    swarm = swarm_of(*replicas)
    counts = Counter((name[:2], island) for name, island in where(swarm).items())
    for stage, number in enumerate(replicas):
        halves = {counts[f"s{stage}", island] for island in (0, 1)}
        assert halves == {number // 2, -(-number // 2)}
    assert givers_know(swarm)


def test_one_island_is_none() -> None:
    swarm = swarm_of(2, 2, islands=1)
    assert not moves(told for _, told in swarm.told) and set(where(swarm).values()) == {0}


def test_whose_island_loses_a_stage_works_in_another_one_at_once_and_goes_home() -> None:
    swarm = swarm_of(2, 2, 2)
    before = where(swarm)
    assert [report.number for report in moves(lose(swarm, "s1p1"))] == [1]
    assert len(set(where(swarm).values())) == 1 and givers_know(swarm)
    swarm.join("s1p2", 1)
    swarm.run_to(swarm.version + 3)
    after = where(swarm)
    assert after.pop("s1p2") == before.pop("s1p1") and after == before
    assert givers_know(swarm)


def test_spare_replicas_of_an_island_help_one_that_has_lost_its_own() -> None:
    swarm = swarm_of(2, 4, 2)
    lost = [name for name, island in where(swarm).items() if name[:2] == "s1" and island == 0]
    moved = [report for name in lost for report in moves(lose(swarm, name))]
    assert [report.number for report in moved] == [2] and len(moved[0].moved) == 1
    assert givers_know(swarm)


def test_who_is_about_to_leave_is_not_worked_with() -> None:
    swarm = swarm_of(2, 2, 2)
    told = swarm.say("s1p0", Leaving(1, member_of(swarm, "s1p0").term, False))
    assert [report.number for report in moves(told)] == [1]
    assert givers_know_but(swarm, "s1p0")


def test_who_is_late_is_not_worked_with_until_it_is_heard() -> None:
    swarm = swarm_of(2, 2, 2)
    swarm.run(20.0)
    before, peer = where(swarm), swarm.peers[PeerId("s1p0")]
    member = member_of(swarm, "s1p0")
    peer.habit = silent_about(*get_args(Message))
    for _ in range(100):
        swarm.run(0.0 if member.suspect else 0.05)
    assert member.suspect
    assert len({island for name, island in where(swarm).items() if name != "s1p0"}) == 1
    peer.habit = lambda message: [message]
    swarm.speak(peer, [peer.beacon()])
    swarm.run(0.2)
    assert not member.suspect and where(swarm) == before and givers_know(swarm)


def givers_know_but(swarm: Swarm, name: str) -> bool:
    """Return whether those stages before it that work elsewhere know that it is not near."""
    words = [
        told.message.near
        for _, told in swarm.told
        if isinstance(told, Send)
        and isinstance(told.message, Standing)
        and told.message.peer == name
        and where(swarm)[told.to] != member_of(swarm, name).island
        and told.to.startswith("s0")
    ]
    return bool(words) and not words[-1]


def test_who_asks_for_an_island_is_in_it() -> None:
    """Replicas that have come before make room for one that asks."""
    swarm = Swarm((), latency_s=0.05, islands=2, needed=(2, 2))
    for place, name in enumerate(("s0p0", "s0p1", "s1p0", "s1p1")):
        swarm.join(name, int(name[1]), island=place % 2 if name < "s1" else 1 - place % 2)
        swarm.run(0.3)
    swarm.run_to(2)
    assert where(swarm) == {"s0p0": 0, "s0p1": 1, "s1p0": 1, "s1p1": 0} and givers_know(swarm)
    swarm.join("s1p2", 1, island=0)
    swarm.run_to(12)
    assert where(swarm)["s1p2"] == 0
    lose(swarm, "s1p0")
    assert sorted(where(swarm)[name] for name in ("s1p1", "s1p2")) == [0, 1]


def test_seats_of_a_process_are_of_one_island() -> None:
    swarm = Swarm((), latency_s=0.05, islands=2, needed=(2, 2, 2))
    for stage, name in ((0, "a/0"), (1, "b/1"), (2, "a/2"), (0, "b/0"), (1, "a/1"), (2, "b/2")):
        swarm.join(name, stage)
        swarm.run(0.3)
    swarm.run_to(2)
    islands = where(swarm)
    assert len({islands[name] for name in ("a/0", "a/1", "a/2")}) == 1
    assert len({islands[name] for name in ("b/0", "b/1", "b/2")}) == 1


def test_next_microbatch_goes_to_the_island_with_the_fewest_under_way() -> None:
    entrances = Entrances(0)
    for seat, island in (("a", 0), ("b", 0), ("c", 1)):
        entrances.add(SeatId(seat), 1.0, island)
    names = [MicrobatchId(0, index) for index in range(40)]
    given = Counter(entrances.choose(0.0, name) for name in names[:8])
    assert given == {"a": 2, "b": 2, "c": 4}, "each island has as many"
    for name in names[:8]:
        if entrances.choose(0.0, name) != "c":
            entrances.over(name)
    entrances.validate()
    entrances.block(SeatId("c"), 5.0)
    assert entrances.choose(1.0, names[20]) in ("a", "b"), "where one can take it"
    entrances.move(SeatId("b"), 1)
    entrances.remove(SeatId("a"))
    entrances.validate()
    assert entrances.choose(1.0, names[21]) == "b"
    entrances.clear()
    entrances.validate()
