"""Strategies by themselves: which parameters a round is about."""

from __future__ import annotations

from typing import Any

import pytest

from swarmrt.averaging import BUILT_IN, Strategy
from swarmrt.config import DEMO, STRATEGIES, SYNC
from swarmrt.config_toml import parse_config

STEPS = 50
RANGES: dict[str, tuple[dict[str, Any], int]] = {
    "async": ({}, 1),
    "diloco": ({"ranges": 7}, 7),
    "sparta": ({"share": 0.05}, 20),
    "lofi": ({}, 0),
}


def strategy(name: str, num_parameters: int, **settings: Any) -> Strategy:
    averaging = {"strategy": name, **settings}
    config = parse_config({"run": {"steps": STEPS}, "averaging": averaging}, "test")
    return BUILT_IN[name](config, num_parameters)


def test_a_name_of_the_configuration_is_a_strategy() -> None:
    """Two names are of no strategy: with these replicas commit together."""
    assert {SYNC, DEMO, *BUILT_IN} == set(STRATEGIES) and set(RANGES) == set(BUILT_IN)


@pytest.mark.parametrize("num_parameters", [1, 3, 1000, 1003])
@pytest.mark.parametrize("name", RANGES)
def test_ranges_that_take_turns_are_all_of_the_parameters(name: str, num_parameters: int) -> None:
    settings, turns = RANGES[name]
    made = strategy(name, num_parameters, **settings)
    turns = min(turns, num_parameters)
    ranges = [made.where(version) for version in range(turns)]
    ends = [0, *(where.stop for where in ranges)]
    assert [where.start for where in ranges] == ends[:-1]
    assert ends[-1] == (num_parameters if turns else 0)
    lengths = [where.stop - where.start for where in ranges]
    assert not lengths or max(lengths) - min(lengths) <= 1
    assert [made.where(turns + version) for version in range(turns)] == ranges


@pytest.mark.parametrize("name", RANGES)
def test_the_last_round_is_about_everything(name: str) -> None:
    made = strategy(name, 1000, **RANGES[name][0])
    assert made.where(STEPS - 1) == made.where(STEPS) == slice(0, 1000)
