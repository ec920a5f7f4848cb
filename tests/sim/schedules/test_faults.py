"""Whole swarms under seeded schedules of faults: promises P1 and P2 after every event."""

from __future__ import annotations

import pytest

from swarmrt.sim.schedules.faults import KINDS, draw, play
from swarmrt.sim.schedules.shrinking import play_all

SLICE = 20  # seeds a test; `scripts/simulate_faults --seeds 100000` soaks


@pytest.mark.parametrize("first", range(0, 15 * SLICE, SLICE))
def test_no_schedule_breaks_a_promise(first: int) -> None:
    play_all(map(draw, range(first, first + SLICE)))


def test_newcomer_that_misses_a_commit_is_not_waited_for() -> None:
    """Found by a soak: it became ready just as the others applied without it."""
    play(draw(209133))


def test_microbatch_that_goes_again_does_not_wait_for_the_window() -> None:
    """Found by a soak: all that filled the window waited behind it."""
    play(draw(83378))


def test_gradient_that_is_here_is_passed_on_to_who_asks_for_it() -> None:
    """Found by a soak: the last stage had run backward by the grant of an earlier attempt."""
    play(draw(34381))


def test_microbatch_that_was_given_up_is_not_accumulated_by_a_repeated_word() -> None:
    """Found by a soak of short computations: each commit was refused for another microbatch."""
    play(draw(408619))


def test_schedules_cover_every_kind_of_fault_and_every_answer_to_it() -> None:
    covered = play(draw(0)).covered
    for seed in range(1, 80):
        covered += play(draw(seed)).covered
    answers = ("fenced", "recovered", "reattempted", "released", "void round", "epochs")
    assert all(covered[what] for what in (*KINDS, *answers)), covered
