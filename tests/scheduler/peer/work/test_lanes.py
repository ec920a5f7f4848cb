"""The turns of seats at the device that they share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.scheduler.peer.work.lanes import Lanes


def taken(lanes: Lanes[str]) -> list[str]:
    return [lanes.take() for _ in range(len(lanes))]


def test_one_seat_is_served_in_its_order() -> None:
    lanes: Lanes[str] = Lanes()
    for number in range(6):
        lanes.add(0, str(number), is_forward=number % 2 == 0)
    assert taken(lanes) == list("012345")


def test_backward_of_one_seat_goes_before_forwards_of_another() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add(0, "forward of 0", is_forward=True)
    lanes.add(2, "forward of 2", is_forward=True)
    lanes.add(1, "backward of 1", is_forward=False)
    assert taken(lanes) == ["backward of 1", "forward of 0", "forward of 2"]


def test_what_a_seat_has_handed_over_can_be_forgotten() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add(0, "of 0", is_forward=False)
    lanes.add(1, "of 1", is_forward=True)
    lanes.drop(0)
    lanes.drop(0)
    assert taken(lanes) == ["of 1"]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_all_are_served_and_no_seat_out_of_its_order(jobs: list[tuple[int, bool]]) -> None:
    lanes: Lanes[str] = Lanes()
    for number, (seat, is_forward) in enumerate(jobs):
        lanes.add(seat, f"{seat} {number}", is_forward=is_forward)
    done = [tuple(map(int, job.split())) for job in taken(lanes)]
    assert sorted(number for _, number in done) == list(range(len(jobs)))
    for seat in range(4):
        numbers = [number for its, number in done if its == seat]
        assert numbers == sorted(numbers)
