"""Policies by name, as `--policy` takes them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

from swarmrt.errors import UsageError, did_you_mean
from swarmrt.foreign import printable
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.sim.fluid.policies.newcomers import AtRandom, ToLeastCapacity, ToPoorest
from swarmrt.sim.fluid.policies.own import Rebalancing
from swarmrt.sim.fluid.policies.periodic import Literal, Strong
from swarmrt.sim.fluid.policies.petals import Petals
from swarmrt.sim.fluid.policies.policy import Policy

OWN = "swarmrt"
ORACLES = {"oracle": "b", "oracle-free": "a"}
PLAIN: dict[str, Callable[[int], Policy]] = {
    "none": AtRandom,
    "static": ToPoorest,
    "gwtf": ToLeastCapacity,
}
WITH_NUMBER: dict[str, tuple[Callable[[int, float], Policy], float, float, float]] = {
    OWN: (lambda seed, share: Rebalancing(Settings(standby_share=share)), 1.0, 0.0, 1.0),
    "swarm": (Strong, 60.0, 1.0, math.inf),
    "swarm-literal": (Literal, 60.0, 1.0, math.inf),
    "petals": (Petals, 0.75, 0.0, 1.0),
}
NAMES = (*WITH_NUMBER, *PLAIN, *ORACLES)


def make_policy(name: str, seed: int) -> Policy:
    """Return a policy by its name, with its number after a colon, or by `package.module:Class`.

    Raises UsageError.
    """
    word, colon, rest = name.partition(":")
    if word in PLAIN and not colon:
        return PLAIN[word](seed)
    if word in WITH_NUMBER:
        make, default, least, most = WITH_NUMBER[word]
        return make(seed, _number(name, rest, least, most) if colon else default)
    if colon and "." in word or (colon and rest.isidentifier()):
        return _imported(name, word, rest, seed)
    hint = did_you_mean(word, NAMES)
    raise UsageError(
        f"policy {printable(name)!r} is unknown{hint}: the policies are {', '.join(NAMES)}, or "
        "your own as package.module:Class"
    )


def check_policy(name: str) -> None:
    """Raise UsageError if there is no such policy."""
    if name not in ORACLES:
        make_policy(name, 0)


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (least <= number <= most and math.isfinite(number)):
        limit = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise UsageError(f"policy {printable(name)!r}: after the colon comes a number {limit}")
    return number


def _imported(name: str, module: str, attribute: str, seed: int) -> Policy:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"policy {printable(name)!r} cannot be imported: {error}") from error
    try:
        policy: Policy = found(seed)
    except TypeError as error:
        raise UsageError(f"policy {printable(name)!r} is not made with a seed: {error}") from error
    lacking = [word for word in ("period_s", "decide", "wake") if not hasattr(policy, word)]
    if lacking:
        raise UsageError(f"policy {printable(name)!r} has no {', '.join(lacking)}")
    return policy
