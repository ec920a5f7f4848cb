"""At which version a new trainer incarnation goes on."""

from __future__ import annotations

from swarmrt.messages import Beacon
from swarmrt.scheduler.resumption import choose_version


def holds(stage: int, version: int, applied: int, prepared: int = -1, digest: str = "d") -> Beacon:
    return Beacon(2, 0, stage, "joining", version, digest, prepared, applied, 1.5, 0, 0, 0.0)


def test_newest_version_that_every_stage_holds() -> None:
    plan = choose_version([holds(0, 7, 70), holds(1, 7, 70)], 2, checkpoint_version=5)
    assert (plan.version, plan.is_live, plan.round, plan.norm) == (7, True, 70, 1.5)


def test_stage_that_has_prepared_what_another_has_applied_follows() -> None:
    plan = choose_version([holds(0, 7, 70), holds(1, 6, 60, prepared=70)], 2, 5)
    assert (plan.version, plan.is_live) == (7, True)


def test_another_rounds_gradient_does_not_do() -> None:
    """It has the same microbatches in it, but other low bits."""
    plan = choose_version([holds(0, 7, 70), holds(1, 6, 60, prepared=69)], 2, 5)
    assert (plan.version, plan.is_live) == (5, False)


def test_version_from_before_a_rollback_does_not_mix() -> None:
    plan = choose_version([holds(0, 7, 70), holds(1, 7, 33)], 2, 5)
    assert (plan.version, plan.is_live) == (5, False)


def test_older_than_the_checkpoint_is_of_no_use() -> None:
    plan = choose_version([holds(0, 3, 30), holds(1, 3, 30)], 2, 5)
    assert (plan.version, plan.is_live) == (5, False)


def test_peer_without_a_whole_state_does_not_count() -> None:
    plan = choose_version([holds(0, 7, 70), holds(1, 7, 70, digest="")], 2, 5)
    assert (plan.version, plan.is_live) == (5, False)
