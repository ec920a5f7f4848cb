"""Policies of wiring, named by their import path."""

from __future__ import annotations

import random

import pytest

from examples.two_choices import TwoChoices
from swarmrt.config_toml import parse_config
from swarmrt.errors import ConfigError, RunError
from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import Estimates
from swarmrt.scheduler.wiring.iwrr import Interleaved
from swarmrt.scheduler.wiring.policy import check_policy, policy_of
from swarmrt.scheduler.wiring.stochastic import Wiring

A, B = SeatId("a"), SeatId("b")
OWN = "examples.two_choices:TwoChoices"


class SticksToOne:
    """A policy that is wrong: it goes on choosing whom it was told of first."""

    def __init__(self, estimates: Estimates, rng: random.Random) -> None:
        self.first: SeatId | None = None

    def add(self, seat: SeatId) -> None:
        self.first = self.first or seat

    def remove(self, seat: SeatId) -> None:
        pass

    def choose(self, now: float) -> SeatId | None:
        return self.first


class Idle(SticksToOne):
    """A policy that is wrong: it chooses nobody."""

    def choose(self, now: float) -> SeatId | None:
        return None


class NeverChooses:
    """A class that is no policy."""

    def add(self, seat: SeatId) -> None: ...

    def remove(self, seat: SeatId) -> None: ...


def test_policies_are_found_by_their_names() -> None:
    assert policy_of("iwrr") is Interleaved
    assert policy_of(OWN) is TwoChoices


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:Policy", "cannot import no_such_module"),
        ("examples.two_choices:Missing", "defines no class Missing"),
        ("examples.two_choices:SeatId", "defines no class SeatId"),
        (f"{__name__}:NeverChooses", "has no method 'choose'"),
        ("subprocess:Popen", "no package of Python's own has policies"),
    ],
)
def test_what_is_no_policy_is_refused(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        policy_of(name)


@pytest.mark.parametrize("name", ["fastest", "a.b", "a:b:c", "a b:c"])
def test_a_configuration_names_a_policy_that_can_be_one(name: str) -> None:
    with pytest.raises(ConfigError, match='neither "iwrr" nor'):
        parse_config({"wiring": {"policy": name}}, "test")


def test_a_policy_of_others_needs_consent() -> None:
    check_policy("iwrr", (), "run 'x'")
    check_policy(OWN, (OWN,), "run 'x'")
    with pytest.raises(ConfigError, match=f"pass --allow-policy {OWN} if you trust it"):
        check_policy(OWN, ("examples.two_choices:Other",), "run 'x'")


def test_a_policy_is_told_only_of_those_that_can_take_work() -> None:
    wiring = Wiring(random.Random(0), make_policy=TwoChoices)
    wiring.set_peers([A, B])
    wiring.block(A, until=5.0)
    assert {wiring.choose(1.0) for _ in range(20)} == {B}
    wiring.limit(B, 1)
    assert (wiring.choose(1.0, "first"), wiring.choose(1.0, "second")) == (B, None)
    assert wiring.choose(6.0, "second") == A


def test_a_policy_that_chooses_who_may_take_nothing_is_found_out() -> None:
    wiring = Wiring(random.Random(0), make_policy=SticksToOne)
    wiring.set_peers([A, B])
    assert wiring.choose(0.0) == A
    wiring.block(A, until=5.0)
    with pytest.raises(RunError, match="SticksToOne chose a, which may take no work"):
        wiring.choose(1.0)


def test_a_policy_that_chooses_nobody_though_some_may_take_work_is_found_out() -> None:
    wiring = Wiring(random.Random(0), make_policy=Idle)
    assert wiring.choose(0.0) is None
    wiring.set_peers([A])
    with pytest.raises(RunError, match="Idle chose nobody"):
        wiring.choose(1.0)
