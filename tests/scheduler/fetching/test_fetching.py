"""Fetching a state: what is asked of whom, in a world of donors that are slow, gone, or lie."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.scheduler.fetching.donors import MISSES, OF_ONE
from swarmrt.scheduler.fetching.fetch import (
    MOST_TIMES,
    Check,
    Fetched,
    Fetching,
    GiveUp,
    Keep,
    Step,
)
from swarmrt.scheduler.fetching.sharing import IN_ALL, Ask
from swarmrt.scheduler.timing.times import AGAIN_S, CHUNK_S, MOST_AWAY_S, OFFER_S

CHUNK = 10
GOOD = "good"
FOR_EVER = 1e9
Piece = tuple[str, int]  # the file, and the offset


@dataclass(frozen=True)
class Habit:
    """The ways of a donor."""

    chunk_s: float = 1.0
    file: str = GOOD  # that it says to have
    gives: str = ""  # what it gives in truth, where that is another
    away: tuple[float, float] = (0.0, 0.0)  # its link is broken meanwhile
    mute: tuple[float, float] = (0.0, 0.0)  # it answers nothing that it is asked meanwhile
    refuses_from: float = FOR_EVER

    @property
    def is_honest(self) -> bool:
        return self.file == GOOD and not self.gives


class Donors:
    """A world of donors: each gives one chunk after the other, over a link of its own."""

    def __init__(self, num_chunks: int, **habits: Habit) -> None:
        self.size = num_chunks * CHUNK - 3
        self.habits = {PeerId(name): habit for name, habit in habits.items()}
        self.core = Fetching(self.size, CHUNK)
        self.now = 0.0
        self.landed: dict[int, Piece] = {}
        self.asked: Counter[PeerId] = Counter()  # bytes, by donor
        self.given: Counter[PeerId] = Counter()  # bytes that have come
        self.outcome: Fetched | GiveUp | None = None
        self._arrived: Piece = ("", 0)
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, PeerId, Ask | None]] = []
        self._free_at: dict[PeerId, float] = dict.fromkeys(self.habits, 0.0)
        for donor, habit in self.habits.items():
            if habit.away[1] > habit.away[0]:
                self._at(habit.away[0], "lost", donor)

    def _at(self, time: float, what: str, donor: PeerId, ask: Ask | None = None) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, donor, ask))

    def ask(self) -> None:
        self.outcome = None
        self.act(self.core.ask(self.habits, self.now))

    def run(self, until: float = FOR_EVER) -> Fetched | GiveUp | None:
        """Go on until it is fetched or given up, or that time has come."""
        for _ in range(20_000):
            if self.outcome is not None:
                return self.outcome
            event_at = self._events[0][0] if self._events else FOR_EVER
            wake_at = self.core.wake_at
            assert min(event_at, wake_at) < FOR_EVER, "it waits for ever"
            if min(event_at, wake_at) > until:
                return None
            if wake_at < event_at:
                self.now = max(self.now, wake_at)
                self.act(self.core.deadline_passed(self.given, self.now))
            else:
                self.now, _, what, donor, ask = heapq.heappop(self._events)
                self._happens(what, donor, ask)
        raise AssertionError("it never ends")

    def _happens(self, what: str, donor: PeerId, ask: Ask | None) -> None:
        habit = self.habits[donor]
        if what == "lost":
            self.act(self.core.donor_lost(donor, "is gone", self.now))
        elif ask is None or _is_within(self.now, habit.away):
            return  # it broke meanwhile
        elif what == "refused":
            self.act(self.core.donor_refused(donor, "has it not", self.now))
        else:
            length = ask.length_bytes
            self.given[donor] += length
            self._arrived = (habit.gives or habit.file, ask.offset_bytes)
            told = (ask.offset_bytes, length, habit.file, self.size)
            self.act(self.core.chunk_came(donor, *told, self.now))

    def act(self, steps: list[Step]) -> None:
        self.core.validate()
        for step in steps:
            match step:
                case Ask(donor, offset, length):
                    self._send(donor, step, offset, length)
                case Keep(offset):
                    self.landed[offset] = self._arrived
                    self.act(self.core.written(offset, self.now))
                case Check(digest):
                    self._check(digest)
                case Fetched() | GiveUp():
                    self.outcome = step
        self.core.validate()

    def _send(self, donor: PeerId, ask: Ask, offset: int, length: int) -> None:
        assert length == 1 or offset not in self.core.chunks.given, "what is here is asked for"
        habit = self.habits[donor]
        self.asked[donor] += length * (length > 1)
        assert self.asked[donor] <= (MOST_TIMES + 1) * self.size
        if _is_within(self.now, habit.away):
            self._at(self.now, "lost", donor)
        elif self.now >= habit.refuses_from:
            self._at(self.now, "refused", donor, ask)
        elif not _is_within(self.now, habit.mute):
            takes_s = habit.chunk_s * length / CHUNK
            self._free_at[donor] = max(self.now, self._free_at[donor]) + takes_s
            self._at(self.now if length == 1 else self._free_at[donor], "came", donor, ask)

    def _check(self, digest: str) -> None:
        assert self.landed.keys() == set(range(0, self.size, CHUNK))
        if any(piece != (digest, offset) for offset, piece in self.landed.items()):
            steps = self.core.checked("damaged", "it is damaged", self.now)
        elif digest != GOOD:
            steps = self.core.checked("other", "it is another", self.now)
        else:
            steps = self.core.checked("right", "", self.now)
        self.act(steps)


def _is_within(time: float, span: tuple[float, float]) -> bool:
    return span[0] <= time < span[1]


# ------------------------------------------------------------------ whatever donors do

spans = st.builds(
    lambda begin, length: (begin, begin + length),
    st.sampled_from([0.0, 0.5, 3.0, 10.0]),
    st.sampled_from([0.0, 0.0, 0.0, 1.0, 7.0, 50.0, FOR_EVER]),
)
habits = st.builds(
    Habit,
    chunk_s=st.sampled_from([0.01, 0.3, 1.0, 1.0, 8.0]),
    file=st.sampled_from([GOOD, GOOD, GOOD, "other", "third"]),
    gives=st.sampled_from(["", "", "", "rubbish"]),
    away=spans,
    mute=spans,
    refuses_from=st.sampled_from([0.0, 2.0, FOR_EVER, FOR_EVER, FOR_EVER]),
)
several = st.lists(habits, min_size=1, max_size=6)


def world_of(num_chunks: int, several: list[Habit]) -> Donors:
    return Donors(num_chunks, **{f"d{number}": habit for number, habit in enumerate(several)})


@given(st.integers(1, 12), several)
def test_it_ends_and_only_the_file_that_is_wanted_is_fetched(
    num_chunks: int, several: list[Habit]
) -> None:
    """Each wait has a deadline, each chunk is asked for until it is here, and `validate` holds."""
    world = world_of(num_chunks, several)
    world.ask()
    if isinstance(world.run(), Fetched):
        assert world.landed == {at: (GOOD, at) for at in range(0, world.size, CHUNK)}


@given(st.integers(1, 12), several, st.sampled_from([0.01, 1.0, 8.0]))
def test_one_that_has_it_and_stays_is_enough(
    num_chunks: int, several: list[Habit], chunk_s: float
) -> None:
    world = world_of(num_chunks, [*several, Habit(chunk_s)])
    world.ask()
    assert isinstance(world.run(), Fetched)


@given(
    st.integers(1, 12),
    st.lists(st.builds(Habit, chunk_s=st.sampled_from([0.1, 1.0, 3.0]), away=spans), min_size=1,
             max_size=4),
    st.lists(st.sampled_from([0.0, 1.0, 5.0, 20.0]), max_size=4),
)  # fmt: skip
def test_what_has_landed_stays_however_often_all_begins_anew(
    num_chunks: int, several: list[Habit], waits: list[float]
) -> None:
    world = world_of(num_chunks, [*several, Habit()])
    landed: dict[int, Piece] = {}
    for wait_s in waits:
        world.ask()
        world.run(until=world.now + wait_s)
        assert landed.items() <= world.landed.items()
        assert world.core.chunks.missing_bytes == world.size - sum(
            min(CHUNK, world.size - offset) for offset in world.landed
        )
        landed = dict(world.landed)
    world.ask()
    assert isinstance(world.run(), Fetched)


@given(st.integers(1, 40), st.integers(1, 8))
def test_of_donors_that_are_as_fast_nothing_is_asked_twice(num_chunks: int, donors: int) -> None:
    world = world_of(num_chunks, [Habit()] * donors)
    world.ask()
    assert isinstance(world.run(), Fetched)
    assert sum(world.asked.values()) == world.size


# ------------------------------------------------------------------ one after the other


def test_each_gives_what_its_link_carries() -> None:
    world = Donors(100, fast=Habit(0.1), slow=Habit(0.4), slowest=Habit(2.0))
    world.ask()
    world.run()
    best_s = 100 / (1 / 0.1 + 1 / 0.4 + 1 / 2.0)
    assert world.now < 1.2 * best_s
    assert world.given[PeerId("fast")] > 3 * world.given[PeerId("slow")]
    assert sum(world.given.values()) <= world.size + OF_ONE * 2 * CHUNK


def test_the_last_chunks_are_not_left_to_the_slowest() -> None:
    """It has two of them to give when the others are done, each in a hundred seconds."""
    world = Donors(20, a=Habit(0.5), b=Habit(0.5), slow=Habit(100.0))
    world.ask()
    world.run()
    assert world.now < 10.0


def test_never_more_is_on_its_way_than_there_is_memory_for() -> None:
    world = world_of(100, [Habit(1.0)] * 12)
    world.ask()
    world.run(until=5.0)
    owed = [len(donor.owes) for donor in world.core._donors.values()]
    assert max(owed) <= OF_ONE and sum(owed) == IN_ALL


def test_a_donor_that_dies_at_nine_tenths_costs_what_it_owed() -> None:
    world = Donors(100, a=Habit(away=(45.0, FOR_EVER)), b=Habit(), c=Habit(0.5, refuses_from=40.0))
    world.ask()
    assert isinstance(world.run(), Fetched)
    assert sum(world.given.values()) <= world.size + 3
    assert sum(world.asked.values()) <= world.size + 2 * OF_ONE * CHUNK


def test_a_donor_that_was_away_goes_on_where_it_was() -> None:
    world = Donors(100, only=Habit(away=(90.0, 93.0)))
    world.ask()
    assert isinstance(world.run(), Fetched)
    assert world.now < 100 + AGAIN_S + 3
    assert world.given[PeerId("only")] <= world.size + 2


def test_donors_that_are_away_are_waited_for_as_long_as_it_took_so_far() -> None:
    world = Donors(100, only=Habit(away=(20.0, FOR_EVER)))
    world.ask()
    assert isinstance(world.run(), GiveUp) and 38.0 < world.now <= 41.0
    world = Donors(1000, only=Habit(away=(500.0, FOR_EVER)))
    world.ask()
    assert isinstance(world.run(), GiveUp) and 500.0 < world.now <= 501.0 + MOST_AWAY_S
    world = Donors(100, only=Habit(away=(0.0, FOR_EVER)))
    world.ask()
    assert isinstance(world.run(), GiveUp) and world.now == 0.0


def test_whoever_is_silent_is_asked_a_few_times() -> None:
    world = Donors(3, only=Habit(mute=(0.0, FOR_EVER)))
    world.ask()
    outcome = world.run()
    assert isinstance(outcome, GiveUp) and "has not answered" in outcome.reason
    assert world.now == OFFER_S * (2**MISSES - 1)


def test_what_still_moves_is_not_asked_for_again() -> None:
    """A chunk takes a minute, ten times as long as any is expected to."""
    core = Fetching(3 * CHUNK, CHUNK)
    a = PeerId("a")
    core.ask([a], 0.0)
    asked = core.chunk_came(a, 0, 1, GOOD, 3 * CHUNK, 1.0)
    assert [step.offset_bytes for step in asked if isinstance(step, Ask)] == [0, CHUNK]
    for moved in range(1, 7):
        assert core.deadline_passed({a: moved}, CHUNK_S * moved + 1) == []
    assert core.chunk_came(a, 0, CHUNK, GOOD, 3 * CHUNK, 61.0)[0] == Keep(0)


def test_a_file_that_several_have_spoilt_is_got_from_one_after_the_other() -> None:
    """What the first of them has given by then is not got again."""
    world = Donors(10, liar=Habit(gives="rubbish"), honest=Habit(0.5))
    world.ask()
    assert isinstance(world.run(), Fetched)
    assert world.given[PeerId("honest")] <= world.size + 1


def test_a_liar_is_found_out_when_it_was_alone_and_not_asked_again() -> None:
    liar, honest = PeerId("liar"), PeerId("honest")
    distrusted: set[PeerId] = set()
    world = Donors(5, liar=Habit(file="other"), honest=Habit(mute=(0.0, 3.0)))
    world.core = Fetching(world.size, CHUNK, distrusted)
    world.ask()
    assert isinstance(world.run(), Fetched) and distrusted == {liar}
    asked = [step for step in world.core.ask([liar, honest], world.now)]
    assert asked == [Ask(honest, 0, 1)]


def test_chunks_of_another_file_are_not_taken_and_their_donor_is_asked_which_it_has() -> None:
    """They may have been on their way since it had that one; five times is a lie."""
    core = Fetching(20 * CHUNK, CHUNK)
    a = PeerId("a")
    core.ask([a], 0.0)
    for _ in range(MISSES - 1):
        asked = core.chunk_came(a, 0, 1, GOOD, 20 * CHUNK, 1.0)
        assert Ask(a, 0, CHUNK) in asked
        assert core.chunk_came(a, 0, CHUNK, "other", 20 * CHUNK, 1.0) == [Ask(a, 0, 1)]
    core.chunk_came(a, 0, 1, GOOD, 20 * CHUNK, 1.0)
    (outcome,) = core.chunk_came(a, 0, CHUNK, "other", 20 * CHUNK, 1.0)
    assert isinstance(outcome, GiveUp) and "another file" in outcome.reason
    assert not core.chunks.given and not core.chunks.writing


@pytest.mark.parametrize("size_bytes", [0, 1, 1 << 50])
def test_whoever_has_a_file_of_another_size_is_not_asked_for_it(size_bytes: int) -> None:
    core = Fetching(3 * CHUNK, CHUNK)
    core.ask([PeerId("a")], 0.0)
    (outcome,) = core.chunk_came(PeerId("a"), 0, 1, GOOD, size_bytes, 1.0)
    assert isinstance(outcome, GiveUp) and "cannot be it" in outcome.reason


def test_nobody_who_was_not_asked_is_heard() -> None:
    core = Fetching(3 * CHUNK, CHUNK)
    a, stranger = PeerId("a"), PeerId("stranger")
    core.ask([a], 0.0)
    assert core.chunk_came(stranger, 0, CHUNK, GOOD, 3 * CHUNK, 1.0) == []
    assert core.chunk_came(a, CHUNK, CHUNK, GOOD, 3 * CHUNK, 1.0) == []
    assert core.donor_refused(stranger, "no", 1.0) == []
    assert not core.chunks.given and not core.chunks.writing
