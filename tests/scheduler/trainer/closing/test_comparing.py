"""Newcomers that make steps longer than they were before, by whatever they are slow in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.scheduler.recording import Header, of_json, to_json
from swarmrt.scheduler.settings import StepTold
from swarmrt.scheduler.trainer.closing.comparing import JUDGED, LONGER, TOLD, Comparing, Longer
from swarmrt.scheduler.trainer.closing.worth import least_worth
from tests.scheduler.trainer_core import Swarm

A, B, C, D = map(PeerId, "abcd")
BEFORE = [((A,), 10.0)] * 5


def verdict(steps: list[tuple[tuple[PeerId, ...], float]], held_up: bool = False) -> Longer | None:
    """Return what is found at the last of these steps; before that it is nothing."""
    comparing = Comparing()
    found = [comparing.step_took(set(m), s, counts=not held_up) for m, s in steps]
    assert not any(found[:-1])
    return found[-1]


def test_who_comes_alone_and_makes_steps_longer_is_named_with_both_figures() -> None:
    assert verdict([*BEFORE, *[((A, B), 16.0)] * LONGER]) == Longer({B}, 16.0, 10.0)


@pytest.mark.parametrize(
    "steps",
    [
        [((A, B, C), 16.0)] * LONGER,
        [((A, B), 16.0), *[((A, B, C), 16.0)] * LONGER],
        [((A, B), 9.0), *[((A, B, C), 16.0)] * LONGER],
    ],
    ids=["at_once", "one_after_the_other", "too_soon_to_know"],
)
def test_two_that_make_steps_longer_together_are_judged_together(
    steps: list[tuple[tuple[PeerId, ...], float]],
) -> None:
    assert verdict([*BEFORE, *steps]) == Longer({B, C}, 16.0, 10.0)


def test_when_one_of_two_has_gone_the_other_is_judged_by_the_steps_before_both() -> None:
    came = [((A, B, C), 16.0)] * (LONGER - 1)
    steps = [*BEFORE, *came, *[((A, C), 16.0)] * LONGER]
    assert verdict(steps) == Longer({C}, 16.0, 10.0)
    alone = [*BEFORE, *came, ((A,), 10.0), *[((A, D), 16.0)] * LONGER]
    assert verdict(alone) == Longer({D}, 16.0, 10.0)


def test_who_has_made_no_step_longer_is_not_to_blame_for_what_comes_with_another() -> None:
    steps = [*BEFORE, *[((A, B), 9.0)] * LONGER, *[((A, B, C), 16.0)] * LONGER]
    found = verdict(steps)
    assert found is not None and found.peers == {C} and found.before_s == 9.0


def test_some_shorter_steps_between_are_no_excuse() -> None:
    seconds = [16.0, 16.0, 12.0, 16.0, 12.0, 16.0, 16.0, 16.0]
    assert verdict([*BEFORE, *(((A, B), each) for each in seconds)]) == Longer({B}, 16.0, 10.0)


@pytest.mark.parametrize(
    "steps",
    [
        [*BEFORE, *[((A, B), 14.0)] * 20],  # by less than half
        [*[((A,), 0.1)] * 5, *[((A, B), 1.9)] * 20],  # by little
        [*BEFORE, *[((A, B), 16.0)] * (LONGER - 1), *[((A, B), 9.0)] * 20],  # in the beginning
        [*BEFORE, *[((A, B), 9.0)] * JUDGED, *[((A, B), 16.0)] * 20],  # it is long since it came
        [*BEFORE, *[((B, C), 16.0)] * 20],  # another went
        [*BEFORE, ((A, B), 16.0), *[((B,), 25.0)] * 20],  # it is alone by now
        [((A, B), 16.0)] * 20,  # nothing is known of steps without it
    ],
    ids=["by_less", "little", "early", "long_ago", "changed", "alone", "unknown"],
)
def test_of_others_nothing_is_said(steps: list[tuple[tuple[PeerId, ...], float]]) -> None:
    assert verdict(steps) is None


def test_of_several_the_one_with_the_slowest_link_is_done_without_unless_it_is_alone() -> None:
    swarm = Swarm(replicas=(2, 2, 1))
    swarm.run_to(2)
    for name, gradient_s in (("s0p0", 1.0), ("s1p0", 3.0), ("s1p1", 2.0), ("s2p0", 9.0)):
        swarm.peers[PeerId(name)].gradient_s = gradient_s
        swarm.say(name, swarm.peers[PeerId(name)].beacon())
    found = least_worth(swarm.core.run, {PeerId(name) for name in ("s0p0", "s1p0", "s1p1", "s2p0")})
    assert found is not None and found.peer == "s1p0"


def test_steps_that_were_held_up_do_not_count() -> None:
    assert verdict([*BEFORE, *[((A, B), 16.0)] * 20], held_up=True) is None


rosters = st.sampled_from([(A,), (A, B), (A, B, C)])


@given(
    st.lists(st.tuples(rosters, st.sampled_from([5.0, 10.0, 20.0])), max_size=TOLD),
    st.integers(0, TOLD),
)
def test_the_next_incarnation_finds_what_this_one_would_have_found(
    steps: list[tuple[tuple[PeerId, ...], float]], resumed_at: int
) -> None:
    one = Comparing()
    found = [one.step_took(set(members), seconds) for members, seconds in steps]
    told = tuple(StepTold(seconds, members) for members, seconds in steps[:resumed_at])
    other = Comparing(told)
    again = [other.step_took(set(members), seconds) for members, seconds in steps[resumed_at:]]
    assert again == found[resumed_at:]


def test_what_was_told_is_in_the_log() -> None:
    settings = Swarm(told=(StepTold(2.5, (A, B)), StepTold(3.0, (A,)))).settings
    again = of_json(to_json(Header(settings)))
    assert again == Header(settings)
