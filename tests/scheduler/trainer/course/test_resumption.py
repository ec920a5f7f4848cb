"""At which version a new trainer incarnation goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from swarmrt.messages import Beacon
from swarmrt.scheduler.trainer.course.resumption import Checkpointed, Plan, choose_version

CHECKPOINT = Checkpointed(5, ("c0", "c1"), 0)


def holds(
    stage: int, version: int, applied: int, prepared: int = -1, digest: str = "d", norm: float = 1.5
) -> Beacon:
    return Beacon(2, 0, stage, "joining", version, digest, prepared, applied, norm, 0, 0, 0.0)


def choose(holdings: Sequence[Beacon], checkpoint: Checkpointed = CHECKPOINT) -> Plan:
    return choose_version(holdings, checkpoint, epoch=2, last_version=1000)


def both(version: int, applied: int, number: int = 1, **others: Any) -> list[Beacon]:
    """So many peers of each stage hold it."""
    return [holds(stage, version, applied, **others) for stage in (0, 1) for _ in range(number)]


def test_newest_version_that_every_stage_holds() -> None:
    plan = choose([holds(0, 7, 70), holds(1, 7, 70)])
    assert (plan.version, plan.is_live, plan.round, plan.norm) == (7, True, 70, 1.5)
    assert plan.digests == ("d", "d")


def test_stage_that_has_prepared_what_another_has_applied_follows() -> None:
    plan = choose([holds(0, 7, 70), holds(1, 6, 60, prepared=70)])
    assert (plan.version, plan.is_live) == (7, True)
    assert plan.digests == ("d", ""), "nobody has it there yet"


def test_another_rounds_gradient_does_not_do() -> None:
    """It has the same microbatches in it, but other low bits."""
    plan = choose([holds(0, 7, 70), holds(1, 6, 60, prepared=69)])
    assert (plan.version, plan.is_live) == (5, False)


def test_version_from_before_a_rollback_does_not_mix() -> None:
    plan = choose([holds(0, 7, 70), holds(1, 7, 33)])
    assert (plan.version, plan.is_live) == (5, False)


def test_older_than_the_checkpoint_is_of_no_use() -> None:
    plan = choose([holds(0, 3, 30), holds(1, 3, 30)])
    assert (plan.version, plan.is_live) == (5, False)


def test_peer_without_a_whole_state_does_not_count() -> None:
    plan = choose([holds(0, 7, 70), holds(1, 7, 70, digest="")])
    assert (plan.version, plan.is_live) == (5, False)


# ---------------------------------------------------------------------- what peers may make up


@pytest.mark.parametrize("version, applied", [(999, 90), (1001, 90), (2**63, 90), (8, 2 << 32)])
def test_few_do_not_outvote_many_by_saying_more(version: int, applied: int) -> None:
    plan = choose(both(7, 70, number=2) + both(version, applied, digest="x"))
    assert (plan.version, plan.round) == (7, 70)


@pytest.mark.parametrize("version", [1001, 2**64 - 1, -1, -(2**63)])
def test_versions_that_cannot_be_do_not_count(version: int) -> None:
    assert choose(both(version, 90)).is_live is False


def test_rounds_of_this_epoch_and_later_have_not_been_yet() -> None:
    assert choose(both(7, 2 << 32)).is_live is False


def test_far_from_the_checkpoint_as_many_as_the_others_do_not_win() -> None:
    """Three strangers, one of each stage, beside an honest peer of each stage."""
    checkpoint = CHECKPOINT._replace(every=5)
    plan = choose(both(7, 70) + both(999, 90, digest="x"), checkpoint)
    assert plan.version == 7
    assert choose(both(999, 90), checkpoint).version == 999, "nobody says otherwise"


def test_newer_version_wins_over_peers_that_were_left_behind() -> None:
    assert choose(both(7, 70) + both(6, 60)).version == 7


def test_newcomers_that_hold_only_what_they_have_started_with_have_no_say() -> None:
    checkpoint = Checkpointed(0, ("", ""), 0)
    newcomers = both(0, -1, number=3, digest="seed")
    assert choose(both(7, 70) + newcomers, checkpoint).version == 7


def test_norm_and_digests_are_those_that_most_say() -> None:
    plan = choose(both(7, 70, number=2) + both(7, 70, digest="x", norm=math.pi))
    assert (plan.norm, plan.digests) == (1.5, ("d", "d"))
    plan = choose(both(7, 70) + both(7, 70, digest="x"))
    assert plan.digests == ("", ""), "then whoever is ready first is believed"


def test_weights_of_the_checkpoint_are_known() -> None:
    assert choose(both(5, 50, digest="x")).is_live is False
