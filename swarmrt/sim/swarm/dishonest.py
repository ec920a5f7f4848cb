"""Peers that are not honest: the production core, which says something else than it means, or does
not do what it says.

A habit is what can be seen without checking work: who computes garbage and says so in due form is
not found out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Applied,
    Beacon,
    Busy,
    Claim,
    Message,
    Prepared,
    Ready,
    Refused,
)
from swarmrt.scheduler.instructions import Instruction, LoadState, RunForward

Says = Callable[[Message], Iterable[Message]]
NOBODY = PeerId("")


def _all(message: Message) -> Iterable[Message]:
    return (message,)


@dataclass(frozen=True)
class Habit:
    says: Says = _all  # instead of a message
    leaves_out: tuple[type[Instruction], ...] = ()  # what it does not do
    is_early: bool = False  # gives a gradient, of its own making, for whatever it is handed

    def omits(self, instruction: Instruction) -> bool:
        return isinstance(instruction, self.leaves_out)


HONEST = Habit()


def _other_weights(message: Message) -> Iterable[Message]:
    match message:
        case Ready() | Applied() | Beacon():
            return (replace(message, digest="other"),)
    return (message,)


def _tokens(number: int) -> Says:
    def says(message: Message) -> Iterable[Message]:
        return (replace(message, tokens=number) if isinstance(message, Claim) else message,)

    return says


def _loss(loss_sum: float) -> Says:
    def says(message: Message) -> Iterable[Message]:
        return (replace(message, loss_sum=loss_sum) if isinstance(message, Claim) else message,)

    return says


def _norm(squared: float) -> Says:
    def says(message: Message) -> Iterable[Message]:
        is_norm = isinstance(message, Prepared)
        return (replace(message, squared_norm=squared) if is_norm else message,)

    return says


def _own_steps(number: int, late: float, drift: float) -> Says:
    def says(message: Message) -> Iterable[Message]:
        if not isinstance(message, Applied):
            return (message,)
        return (replace(message, local_steps=number, late=late, drift=drift),)

    return says


def _refuses(
    unreachable: PeerId = NOBODY, not_finite: PeerId = NOBODY, unfit: PeerId = NOBODY
) -> Says:
    def says(message: Message) -> Iterable[Message]:
        if not isinstance(message, Prepared):
            return (message,)
        key = (message.epoch, message.step, message.round)
        return (Refused(*key, "no", unreachable, not_finite, unfit),)

    return says


def _silent_about(kind: type[Message]) -> Says:
    return lambda message: () if isinstance(message, kind) else (message,)


def _is_idle(message: Message) -> Iterable[Message]:
    """Make a peer seem to have nothing to do, and to do more and more."""
    match message:
        case Beacon():
            done = message.done + int(message.service_s * 1000) + 1
            return (replace(message, queued=0, done=done, service_s=1e-9),)
        case Accepted() | Busy():
            return (replace(message, service_s=1e-9, backlog_s=0.0),)
    return (message,)


def habits(victim: PeerId) -> dict[str, Habit]:
    """Return habits by name. Some are at the expense of a replica of the same stage."""
    return {
        "other weights": Habit(_other_weights),
        "negative tokens": Habit(_tokens(-10)),
        "huge tokens": Habit(_tokens(2**64 - 1)),
        "loss not finite": Habit(_loss(math.nan)),
        "norm not finite": Habit(_norm(math.nan)),
        "drift not a number": Habit(_own_steps(1, 0.0, math.nan)),
        "later than late": Habit(_own_steps(1, 1.5, 0.0)),
        "less than no steps": Habit(_own_steps(-1, 0.0, 0.0)),
        "false norm": Habit(_norm(1e-12)),
        "refuses every round": Habit(_refuses()),
        "cannot reach another": Habit(_refuses(unreachable=victim)),
        "another's is not finite": Habit(_refuses(not_finite=victim)),
        "another's part is unfit": Habit(_refuses(unfit=victim)),
        "never prepared": Habit(_silent_about(Prepared)),
        "never applied": Habit(_silent_about(Applied)),
        "no receipts": Habit(_silent_about(Accumulated)),
        "never loads": Habit(leaves_out=(LoadState,)),
        "says that it takes no time": Habit(_is_idle),
        "takes all, does nothing": Habit(_is_idle, leaves_out=(RunForward,)),
    }
