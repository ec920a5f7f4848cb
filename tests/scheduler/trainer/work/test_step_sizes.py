"""How many microbatches a step has where rounds come by a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.scheduler.trainer.work.step_sizes import StepSizes


def settle(every_s: float, a_second: float, round_s: float, steps: int = 40) -> tuple[int, float]:
    """Return the last step's size, and how long it took, where so many microbatches are computed in
    a second and a step runs while the one before is reduced."""
    sizes, seconds = StepSizes(100_000, every_s, least=4), 0.0
    for step in range(steps):
        size = sizes.of(step)
        sizes.of(step + 1)  # it is open as well
        seconds = max(size / a_second, round_s)
        sizes.took(step, seconds, round_s)
    return size, seconds


def test_without_a_clock_all_steps_are_alike() -> None:
    sizes = StepSizes(32)
    sizes.took(0, 5.0, 1.0)
    assert [sizes.of(step) for step in range(3)] == [32, 32, 32]


@pytest.mark.parametrize("a_second", [1.0, 40.0, 900.0])
def test_intervals_come_to_what_is_wanted(a_second: float) -> None:
    size, seconds = settle(30.0, a_second, round_s=2.0)
    assert seconds == pytest.approx(30.0, rel=0.05) and size == pytest.approx(
        30 * a_second, rel=0.05
    )


def test_nobody_waits_for_rounds_that_take_longer_than_that() -> None:
    size, seconds = settle(1.0, 40.0, round_s=5.0)
    assert seconds == pytest.approx(10.0, rel=0.05) and size == pytest.approx(400, rel=0.05)


def test_step_that_is_open_stays_as_it_is() -> None:
    sizes = StepSizes(1000, 10.0, least=4)
    first, second = sizes.of(0), sizes.of(1)
    sizes.took(0, 1.0, 0.1)
    assert (first, second, sizes.of(1)) == (4, 4, 4)
    assert sizes.of(2) == 8, "twice as many at the most"


@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=30),
)
def test_sizes_are_bounded_whatever_steps_take(
    most: int, least: int, steps: list[tuple[float, float]]
) -> None:
    sizes = StepSizes(most, 5.0, least)
    before = sizes.of(0)
    for step, (seconds, round_s) in enumerate(steps):
        sizes.took(step, seconds, round_s)
        now = sizes.of(step + 1)
        assert min(least, most) <= now <= most
        assert now <= 2 * before + 1 and 2 * now + 1 >= before
        before = now
