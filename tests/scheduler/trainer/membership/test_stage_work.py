"""What a microbatch costs at each stage is learned from processes that were at several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.scheduler.trainer.membership.arranging.stage_work import ENOUGH, StageWork

paces = st.floats(0.01, 10.0)


@given(
    work=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=5),
    paces_s=st.lists(paces, min_size=1, max_size=6),
)
def test_it_is_what_those_show_that_were_everywhere(
    work: list[float], paces_s: list[float]
) -> None:
    found = StageWork([1.0] * len(work))
    for number, pace_s in enumerate(paces_s):
        for stage, its in enumerate(work):
            found.note(PeerId(str(number)), stage, ENOUGH, pace_s * its)
    mean = sum(work) / len(work)
    assert found.of_stages() == pytest.approx([its / mean for its in work])


def test_processes_that_stay_where_they_are_say_nothing() -> None:
    found = StageWork([1.0, 3.0])
    for number in range(4):
        found.note(PeerId(str(number)), number % 2, 1000, 1.0 + number)
    assert found.of_stages() == pytest.approx((0.5, 1.5))


def test_one_of_three_may_say_anything() -> None:
    found = StageWork([1.0, 1.0])
    for name, seconds in (("a", 2.0), ("b", 2.0), ("liar", 1e6)):
        found.note(PeerId(name), 0, ENOUGH, 1.0)
        found.note(PeerId(name), 1, ENOUGH, seconds)
    assert found.of_stages() == pytest.approx((2 / 3, 4 / 3))


def test_what_was_learned_stays_when_those_go_that_have_shown_it() -> None:
    found = StageWork([1.0, 1.0])
    found.note(PeerId("a"), 0, ENOUGH, 1.0)
    found.note(PeerId("a"), 1, ENOUGH, 3.0)
    found.forget(set())
    assert found.of_stages() == pytest.approx((0.5, 1.5))
