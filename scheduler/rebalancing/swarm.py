"""The facts that a rebalancing decision is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage: what a microbatch, its state and a step's gradient cost there."""

    compute: float = 1.0  # seconds of a microbatch at a peer of rate 1
    state_bytes: float = 0.0
    gradient_bytes: float = 0.0  # that a listener receives each step
    least_replicas: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a peer's owner sets."""

    stages: frozenset[int] | None = None  # that it may serve or hold; None are all
    memory_bytes: float = math.inf  # for the states that it holds
    most_states: int = 2
    downlink_bytes_per_s: float = math.inf
    listening_share: float = 0.5  # of the downlink that reduces of a second stage may take
    may_move: bool = True  # False pins it to what it serves
    until: float = math.inf  # when its owner takes it back


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as the trainer knows it. What it serves is among what it holds."""

    name: str
    rate: float  # microbatches a second at a stage of compute 1: a long mean
    serving: int | None = None
    holds: frozenset[int] = frozenset()  # stages whose state it has, current
    loading: int | None = None
    serves_when_loaded: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Swarm:
    """All stages and peers at one moment. The order of the peers decides ties."""

    now: float
    stages: tuple[Stage, ...]
    peers: tuple[Peer, ...]
    step_s: float = math.inf  # a step's length: listening costs a gradient in each
