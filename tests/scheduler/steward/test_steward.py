"""What seats a process holds: at the trainer's word, within what its owner allows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.messages import Finish, GiveUp, Message, Offer, Take, Unable
from swarmrt.scheduler.events import (
    DeadlinePassed,
    Event,
    PeerLost,
    Received,
    SeatClosed,
    SeatNotOpened,
    SeatOpened,
    Started,
    StopRequested,
)
from swarmrt.scheduler.instructions import (
    CloseSeat,
    Instruction,
    OpenSeat,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.settings import StewardSettings
from swarmrt.scheduler.steward.core import StewardCore

ME, TRAINER, STRANGER = PeerId("me"), PeerId("trainer"), PeerId("stranger")
STAGES = 4


def steward(*stages: int, rooms: int = 2, gone_s: float = math.inf) -> StewardCore:
    core = StewardCore(
        StewardSettings(ME, TRAINER, STAGES, stages or (0, 1, 2), rooms, trainer_gone_s=gone_s)
    )
    core.handle(Started(), 0.0)
    return core


def hear(core: StewardCore, message: Message, sender: PeerId = TRAINER) -> list[Instruction]:
    return core.handle(Received(sender, message), 1.0)


def said(told: list[Instruction]) -> list[Message]:
    return [i.message for i in told if isinstance(i, Send)]


def held(told: list[Instruction]) -> tuple[int, ...]:
    """Return what it says that it holds."""
    (offer,) = [message for message in said(told) if isinstance(message, Offer)]
    return offer.held


def test_it_says_what_it_may_at_first_and_from_time_to_time() -> None:
    core = StewardCore(StewardSettings(ME, TRAINER, STAGES, (1, 2), 2, is_pinned=True))
    first, again = core.handle(Started(), 3.0)
    assert first == Send(TRAINER, Offer((1, 2), (), 2, True))
    assert isinstance(again, StartDeadline) and again.at > 3.0
    assert core.handle(DeadlinePassed("offer"), 8.0)[0] == first


def test_a_seat_is_opened_where_the_trainer_says_and_held_until_it_has_closed() -> None:
    core = steward()
    told = hear(core, Take(5, 1, "the poorest"))
    assert told[0] == OpenSeat(1) and held(told) == (1,)
    assert OpenSeat(1) not in hear(core, Take(5, 1, "again")), "it is told twice"
    assert core.handle(SeatOpened(1), 2.0) == []
    assert hear(core, GiveUp(5, 1, "room is needed")) == [CloseSeat(1, "room is needed")]
    assert core.held == (1,)
    assert held(core.handle(SeatClosed(1), 3.0)) == ()


def test_a_seat_is_asked_but_once_to_close() -> None:
    """Asked twice it would go at once, though it may be all that its stage has by then."""
    core = steward()
    hear(core, Take(5, 1, ""))
    core.handle(SeatOpened(1), 2.0)
    assert hear(core, GiveUp(5, 1, "room is needed")) == [CloseSeat(1, "room is needed")]
    assert said(hear(core, GiveUp(5, 1, "room is needed"))) == [Offer((0, 1, 2), (1,), 2)]


def test_a_seat_that_is_given_up_while_it_opens_is_closed_once_it_is_open() -> None:
    core = steward()
    hear(core, Take(5, 1, ""))
    hear(core, GiveUp(5, 1, "it takes too long"))
    assert core.handle(SeatOpened(1), 90.0) == [CloseSeat(1, "it takes too long")]


def test_it_holds_no_more_than_it_has_room_for_and_nothing_that_is_not_allowed() -> None:
    core = steward(0, 1, 2)
    assert OpenSeat(0) in hear(core, Take(5, 0, "")) and OpenSeat(1) in hear(core, Take(5, 1, ""))
    for stage in (2, 3):
        told = hear(core, Take(5, stage, ""))
        assert [type(message) for message in said(told)] == [Unable, Offer] and len(told) == 2
    hear(core, GiveUp(5, 0, ""))
    assert OpenSeat(2) not in hear(core, Take(5, 2, "")), "what closes is still here"
    core.handle(SeatClosed(0), 2.0)
    assert OpenSeat(2) in hear(core, Take(5, 2, ""))


def test_what_could_not_be_opened_is_told() -> None:
    core = steward()
    hear(core, Take(5, 1, ""))
    told = core.handle(SeatNotOpened(1, "no memory"), 2.0)
    assert said(told)[0] == Unable(1, "no memory") and held(told) == ()


def test_orders_of_strangers_of_earlier_trainers_and_of_no_stage_are_nothing() -> None:
    core = steward()
    assert hear(core, Take(5, 1, ""), STRANGER) == []
    hear(core, Take(6, 1, ""))
    assert hear(core, Take(5, 2, "")) == [] and hear(core, GiveUp(5, 1, "")) == []
    assert hear(core, Take(6, STAGES, "")) == [] and hear(core, Take(6, -1, "")) == []
    assert core.held == (1,)


def test_it_leaves_with_its_last_seat() -> None:
    core = steward()
    hear(core, Take(5, 1, ""))
    told = core.handle(StopRequested("Ctrl-C"), 2.0)
    assert said(told) == [Offer((), (1,), 2)] and not any(isinstance(i, Stop) for i in told)
    assert core.handle(SeatOpened(1), 2.5) == [CloseSeat(1, "Ctrl-C")], "it was on its way"
    assert OpenSeat(2) not in hear(core, Take(5, 2, ""))
    assert core.handle(SeatClosed(1), 3.0)[-1] == Stop("Ctrl-C", error=False)
    assert hear(steward(), Finish("the run is done"))[-1] == Stop("the run is done", error=False)


def test_when_the_run_is_over_it_closes_what_it_holds() -> None:
    """The trainer tells each seat that it knows, and cannot know of one that has just opened."""
    core = steward()
    hear(core, Take(5, 1, ""))
    core.handle(SeatOpened(1), 2.0)
    assert CloseSeat(1, "the run is done") in hear(core, Finish("the run is done"))
    assert core.handle(SeatClosed(1), 3.0)[-1] == Stop("the run is done", error=False)


def test_without_a_seat_it_waits_for_a_trainer_only_so_long() -> None:
    core = steward(gone_s=10.0)
    core.handle(PeerLost(TRAINER, "killed"), 1.0)
    assert not any(isinstance(i, Stop) for i in core.handle(DeadlinePassed("offer"), 10.0))
    assert isinstance(core.handle(DeadlinePassed("offer"), 12.0)[0], Stop)
    core = steward(gone_s=10.0)
    core.handle(PeerLost(TRAINER, "killed"), 1.0)
    hear(core, Take(5, 1, ""))
    assert not any(isinstance(i, Stop) for i in core.handle(DeadlinePassed("offer"), 20.0))


EVENTS = st.one_of(
    st.builds(Take, st.integers(-2, 3), st.integers(-1, 5), st.just("")),
    st.builds(GiveUp, st.integers(-2, 3), st.integers(-1, 5), st.just("")),
    st.builds(SeatOpened, st.integers(0, 3)),
    st.builds(SeatNotOpened, st.integers(0, 3), st.just("no memory")),
    st.builds(SeatClosed, st.integers(0, 3)),
    st.just(DeadlinePassed("offer")),
    st.just(PeerLost(TRAINER, "broken")),
)


@given(st.lists(EVENTS, max_size=40), st.integers(1, 3))
def test_whatever_comes_it_holds_what_it_has_opened_and_no_more(
    events: list[Event | Message], rooms: int
) -> None:
    core, open_at = steward(0, 2, rooms=rooms), set[int]()
    for event in events:
        message = isinstance(event, Take | GiveUp)
        told = core.handle(Received(TRAINER, event) if message else event, 1.0)  # type: ignore[arg-type]
        core.validate()
        if isinstance(event, SeatClosed | SeatNotOpened):
            open_at.discard(event.stage)
        for instruction in told:
            if isinstance(instruction, OpenSeat):
                assert instruction.stage in (0, 2) and instruction.stage not in open_at
                open_at.add(instruction.stage)
            if isinstance(instruction, CloseSeat):
                assert instruction.stage in open_at
        assert len(open_at) <= rooms
