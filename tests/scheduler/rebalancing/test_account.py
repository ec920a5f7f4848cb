"""What a plan gains and costs, as stories."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings

from swarmrt.scheduler.rebalancing.account import account, ordered
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Swarm
from tests.scheduler.rebalancing.test_plans import obeyed, swarms
from tests.scheduler.rebalancing.test_rebalance import LIMITS, NO_STANDBY, peer, swarm


def test_a_switch_gains_at_once_and_costs_no_bytes() -> None:
    known = swarm(peer("a", 0, 1), peer("b", 0), peer("c", 0), peer("d", 0), peer("e", 1))
    sums = account(known, NO_STANDBY, rebalance(known, NO_STANDBY))
    assert (sums.now, sums.switched, sums.loaded) == (1.0, 2.0, 2.0)
    assert (sums.load_bytes, sums.load_s, sums.step_bytes) == (0.0, 0.0, 0.0)


def test_a_download_gains_when_it_has_come_and_who_loaded_has_switched() -> None:
    known = swarm(*(peer(name, 0) for name in "abcd"), peer("e", 1))
    sums = account(known, NO_STANDBY, rebalance(known, NO_STANDBY))
    assert (sums.now, sums.switched, sums.loaded) == (1.0, 1.0, 2.0)
    assert (sums.load_bytes, sums.load_s) == (300.0, 300.0)


def test_what_is_under_way_counts_for_later() -> None:
    known = swarm(peer("a", 0), peer("b", 0), peer("c", 1), peer("d", loading=1))
    sums = account(known, NO_STANDBY, rebalance(known, NO_STANDBY))
    assert (sums.now, sums.loaded, sums.load_bytes) == (1.0, 2.0, 0.0)


def test_standby_costs_gradients_and_is_worth_a_loss() -> None:
    known = swarm(peer("a", 0), peer("b", 0), peer("c", 1))
    plan = rebalance(known, Settings(standby_share=0.4))
    (download,) = plan.downloads
    assert download.is_standby and download.stage == 1
    sums = account(known, Settings(standby_share=0.4), plan)
    assert (sums.now, sums.loaded, sums.step_bytes) == (1.0, 1.0, 25.0)
    assert (sums.after_loss, sums.after_loss_planned) == (0.0, 1.0)


def test_seconds_are_told_only_where_the_downlink_is_known() -> None:
    unknown = replace(LIMITS, downlink_bytes_per_s=Limits().downlink_bytes_per_s)
    known = swarm(*(peer(name, 0, limits=unknown) for name in "abcd"), peer("e", 1))
    assert math.isinf(account(known, NO_STANDBY, rebalance(known, NO_STANDBY)).load_s)


def test_losses_are_not_tried_one_by_one_in_a_large_swarm() -> None:
    known = swarm(*(peer(f"p{number}", number % 2) for number in range(100)))
    sums = account(known, NO_STANDBY, rebalance(known, NO_STANDBY))
    assert sums.after_loss is None and sums.after_loss_planned is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms())
def test_it_counts_what_is_done_when_a_plan_is_obeyed(known: Swarm) -> None:
    plan = rebalance(known, NO_STANDBY)
    assert ordered(known, plan) == obeyed(known, plan)
    sums = account(known, NO_STANDBY, plan)
    assert all(rate >= 0 for rate in (sums.now, sums.switched, sums.loaded))
