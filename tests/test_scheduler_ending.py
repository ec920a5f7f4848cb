"""What is saved at the end is what its donors hold."""

from __future__ import annotations

from swarmrt.sim.faults import draw, play


def test_last_version_is_saved_from_who_came_while_it_was_made() -> None:
    """A newcomer listens to the last reduce and is ready before it; then the only member of its
    stage that took part is lost. The newcomer's own digest counts, and not the one of before."""
    outcome = play(draw(32408))
    assert outcome.covered["steps"] == 4 and outcome.covered["fenced"]
