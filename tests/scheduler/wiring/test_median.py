"""The median of numbers that come and go."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.scheduler.wiring.median import Median

numbers = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20)


@given(numbers, st.data())
def test_median_is_that_of_the_numbers_that_are_left(
    values: list[float], data: st.DataObject
) -> None:
    median = Median()
    for value in values:
        median.add(value)
    for value in data.draw(st.lists(st.sampled_from(values), max_size=len(values), unique=True)):
        median.discard(value)
        values.remove(value)
    assert len(median) == len(values)
    assert median.of_all(-1.0) == (statistics.median(values) if values else -1.0)


@given(numbers)
def test_one_number_is_left_out(values: list[float]) -> None:
    median = Median()
    for value in values:
        median.add(value)
    for place, value in enumerate(values):
        others = values[:place] + values[place + 1 :]
        assert median.without(value, -1.0) == (statistics.median(others) if others else -1.0)
