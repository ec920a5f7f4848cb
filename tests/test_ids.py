"""The names of microbatches, and the three things that their step means."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId


def test_a_microbatch_has_a_position_in_the_data_a_version_that_it_runs_on_and_a_commit() -> None:
    microbatch = MicrobatchId(3, 1)
    assert microbatch.position(8) == 25
    assert microbatch.commits_in == 3
    assert [microbatch.runs_on(staleness) for staleness in (0, 1)] == [3, 2]


def test_a_held_out_one_runs_on_the_version_that_it_evaluates() -> None:
    microbatch = MicrobatchId(3, 1, held_out=True)
    assert [microbatch.runs_on(staleness) for staleness in (0, 1)] == [3, 3]
    assert microbatch.commits_in == 3
