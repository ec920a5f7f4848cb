"""The outlook of a run, for people and for programs."""

from __future__ import annotations

import json
import typing

import pytest

from swarmrt.messages import Idle
from swarmrt.observe.rebalancing import IDLE, Outlook
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Swarm
from tests.scheduler.rebalancing.test_rebalance import peer, swarm


def outlook(known: Swarm | None, idle: Idle = "", share: float = 0.0) -> Outlook:
    return Outlook("demo@x", 7, idle, share, known)


def test_a_plan_is_told_with_its_reasons_gains_and_costs() -> None:
    known = swarm(*(peer(f"mover-000{name}", 0) for name in "abcd"), peer("mover-000e", 1))
    told = "\n".join(outlook(known).lines())
    assert told == "\n".join(
        (
            "run demo@x, step 7: 1 microbatches a second, which is what stage 1 computes",
            "  stage   microbatches/s   serve   stand by   load",
            "      0                4       4          0      0",
            "      1                1       1          0      0",
            "would be done now:",
            "  …ver-000a loads the state of stage 1 (300 bytes), to serve it: with it the swarm "
            "goes from 1/s to 2/s",
            "gains: from 1 to 2 microbatches a second (+100%) when what loads has come; with the "
            "loss of whichever peer is missed most, 1 a second would be left then, not 0",
            "costs: 300 bytes to load, while all serve on, 300 s of the slowest downlink",
        )
    )


def test_a_switch_a_standby_and_what_is_under_way_are_told() -> None:
    known = swarm(
        *(peer(name, 0) for name in "abc"), peer("d", 0, 1), peer("e", 1), peer("f", loading=1)
    )
    told = "\n".join(outlook(known, share=1.0).lines())
    assert "under way: …f loads the state of stage 1, to serve it" in told
    assert "to stand by" in told and "more in each step for who stands by" in told
    known = swarm(peer("a", 0, 1), peer("b", 0), peer("c", 0), peer("d", 0), peer("e", 1))
    told = "\n".join(outlook(known).lines())
    assert "  …a serves stage 1, and no more stage 0: it holds the state; " in told
    assert "costs: nothing: the states are there" in told


def test_nothing_to_be_done_is_said() -> None:
    assert "nothing would be done now" in [*outlook(swarm(peer("a", 0), peer("b", 1))).lines()][-1]
    assert "nobody is there yet" in "\n".join(outlook(swarm()).lines())


@pytest.mark.parametrize("idle", [idle for idle in typing.get_args(Idle) if idle])
def test_why_nothing_is_decided_is_said(idle: Idle) -> None:
    assert [*outlook(None, idle).lines()] == [f"run demo@x, step 7: {IDLE[idle]}"]
    assert outlook(None, idle).to_json()["idle"] == idle


def test_programs_get_facts_plan_and_account() -> None:
    unlimited = Peer("z", 1.0, 1, frozenset({1}), limits=Limits())
    known = swarm(*(peer(name, 0) for name in "abcd"), unlimited)
    found = json.loads(json.dumps(outlook(known).to_json(), allow_nan=False))
    assert found["peers"][-1]["downlink_bytes_per_s"] is None
    assert [stage["rate"] for stage in found["stages"]] == [4.0, 1.0]
    plan = rebalance(known, Settings(standby_share=0.0))
    assert [d["peer"] for d in found["plan"]["downloads"]] == [d.peer for d in plan.downloads]
    assert (found["account"]["rate"], found["account"]["rate_loaded"]) == (1.0, 2.0)


def test_what_others_call_themselves_does_no_harm_to_a_terminal() -> None:
    told = "\n".join(outlook(swarm(peer("\x1b[2Jevil", 0), peer("b", loading=1))).lines())
    assert "\x1b" not in told
