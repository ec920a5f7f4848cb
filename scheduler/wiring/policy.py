"""Policies of wiring: what a researcher may put in the place of ours.

`[wiring] policy` names a class by its import path, `package.module:Class`. Each sender makes one,
with its own seed, and tells it which seats may take work. A seat that is blocked, that holds as
many microbatches as it can, or that this sender does not use for now, is not among them.

The rules of a policy:
- It decides by what it is told, by the estimates and by its generator alone: a log that is played
  again, and a simulated swarm, must come to the same choices.
- It is asked for every microbatch: what it does should cost no more than O(log n).
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Collection
from typing import Protocol, cast

from swarmrt.errors import ConfigError
from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import Estimates
from swarmrt.scheduler.wiring.iwrr import Interleaved

BUILT_IN = "iwrr"
NO_POLICIES = sys.stdlib_module_names | {"torch"}


class Policy(Protocol):
    """A choice among the seats that may take work."""

    def add(self, seat: SeatId) -> None:
        """A seat may take work from now on. It is none of those that there are."""

    def remove(self, seat: SeatId) -> None:
        """A seat that was added may take no work from now on. It may be added again."""

    def choose(self, now: float) -> SeatId | None:
        """Return the seat that gets one more microbatch; None only where no seat may take work."""


MakePolicy = Callable[[Estimates, random.Random], Policy]
"""A policy's class is called with the sender's estimates and a generator of its own."""


def check_policy(name: str, allowed: Collection[str], whose: str) -> None:
    """Check that a policy is built in, or is here and one of the allowed. Raises ConfigError.

    `whose` configuration names it, "run 'x'" for example, is said in the error.
    """
    if name not in (BUILT_IN, *allowed):
        raise ConfigError(
            f"{whose} is wired by {name}, which is code on your machine; look at it, and pass "
            f"--allow-policy {name} if you trust it"
        )
    policy_of(name)


def policy_of(name: str) -> MakePolicy:
    """Return the policy of that name. Raises ConfigError when there is none."""
    if name == BUILT_IN:
        return Interleaved
    module_name, _, class_name = name.partition(":")
    if module_name.partition(".")[0] in NO_POLICIES:
        raise ConfigError(f"wiring.policy {name}: no package of Python's own has policies")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"wiring.policy {name}: cannot import {module_name}: {type(error).__name__}: {error}; "
            "it must be installed, or lie in PYTHONPATH"
        ) from error
    made = getattr(module, class_name, None)
    if not isinstance(made, type) or made.__module__ != module_name:
        raise ConfigError(f"wiring.policy {name}: {module_name} defines no class {class_name}")
    missing = [word for word in ("add", "remove", "choose") if not hasattr(made, word)]
    if missing:
        raise ConfigError(f"wiring.policy {name}: {class_name} has no method {missing[0]!r}")
    return cast(MakePolicy, made)
