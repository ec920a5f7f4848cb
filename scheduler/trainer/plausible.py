"""The words that cannot be true: values that no honest peer sends, found in one place.

What is awaited, and of whom, is up to those who handle a message. A number that is not looked at
here is only ever compared, or looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from swarmrt.messages import (
    Accepted,
    Applied,
    Beacon,
    Busy,
    Claim,
    Evaluated,
    Message,
    Offer,
    Prepared,
    Ready,
    Updated,
)
from swarmrt.scheduler.local_work import MOST_DRIFT

MOST_S = 1e6  # a forward and backward that takes ten days, or a queue that does
LEAST_SERVICE_S = 1e-6  # of a microbatch: a single kernel takes longer to begin
MOST_INT = 1 << 62  # sums and neighbours of such numbers can still be written down
MOST_DIGEST = 64  # characters; a fingerprint has 32
MOST_SQUARED = 1e300  # norms of some stages can still be added
MOST_ROOMS = 1 << 10  # states that a process holds at a time
MOST_SAID = 200  # characters of a reason

_NOTHING = ""


class Known(NamedTuple):
    """The facts that a run's configuration tells of every microbatch."""

    tokens: int  # 0 when a log does not say
    least_loss: float


def is_finite(squared_norm: float) -> bool:
    """Return whether a gradient is finite, by its squared norm, which may be anything from 0."""
    return squared_norm <= MOST_SQUARED


def _load(message: Accepted | Busy, _: Known) -> str:
    if 0 <= message.service_s <= MOST_S and 0 <= message.backlog_s <= MOST_S:
        return _NOTHING
    return f"it says that its work takes {message.service_s} s, after {message.backlog_s} s"


def _loss(message: Claim | Evaluated, known: Known) -> str:
    tokens = known.tokens
    if message.tokens != tokens if tokens else not 0 < message.tokens < MOST_INT:
        return f"it says that a microbatch has {message.tokens} tokens"
    if message.loss_sum < known.least_loss:
        return f"it says that a loss is {message.loss_sum}"
    return _NOTHING


def _prepared(message: Prepared, _: Known) -> str:
    if message.squared_norm < 0:
        return f"it says that a squared norm is {message.squared_norm}"
    return _digest(message.digest)


def _updated(message: Updated, _: Known) -> str:
    return _digest(message.digest)


def _beacon(beacon: Beacon, _: Known) -> str:
    counts = (beacon.term, beacon.version, beacon.queued, beacon.done)
    numbers = (*counts, beacon.gradient_bytes, beacon.moved_bytes, beacon.holds)
    or_none = (beacon.epoch, beacon.prepared, beacon.applied)  # -1: it has not been hailed yet
    if not all(0 <= number < MOST_INT for number in numbers):
        return f"its beacon counts {numbers}"
    if not all(-1 <= number < MOST_INT for number in or_none):
        return f"its beacon names the epoch and rounds {or_none}"
    is_quick = 0 < beacon.service_s < LEAST_SERVICE_S
    if is_quick or not (0 <= beacon.norm < math.inf and 0 <= beacon.service_s <= MOST_S):
        return f"its beacon says {beacon.norm} and {beacon.service_s} s"
    if beacon.paused and beacon.state != "joining":
        return f"its beacon says that it is paused, and {beacon.state}"
    if not (0 <= beacon.gradient_s <= MOST_S and 0 <= beacon.every_s <= MOST_S):
        return f"its beacon says {beacon.gradient_s} s of a gradient, {beacon.every_s} s of itself"
    return _digest(beacon.digest)


def _version(message: Ready | Applied, _: Known) -> str:
    if not 0 <= message.version < MOST_INT:
        return f"it says that it holds version {message.version}"
    return _digest(message.digest)


def _applied(message: Applied, known: Known) -> str:
    steps, late, drift = message.local_steps, message.late, message.drift
    if not (0 <= steps < MOST_INT and 0 <= late <= 1 and 0 <= drift <= MOST_DRIFT):
        return f"it says that it made {steps} steps by itself, {late} of it late, {drift} far"
    return _version(message, known)


def _offer(offer: Offer, _: Known) -> str:
    stages = (*offer.stages, *offer.held)
    if not (0 < offer.rooms <= MOST_ROOMS and all(0 <= s < MOST_INT for s in stages)):
        return f"it offers {offer.rooms} rooms, and stages {stages!r:.80}"
    limits = (offer.down_bytes_per_s, offer.listening_share, offer.for_s, offer.every_s)
    if not all(0 <= limit < math.inf for limit in limits) or offer.listening_share > 1:
        return f"it says that its limits are {limits}"
    return _NOTHING


def _digest(digest: str) -> str:
    return _NOTHING if len(digest) <= MOST_DIGEST else "it names a digest that is none"


CHECKS: dict[type[Message], Callable[[Any, Known], str]] = {
    Accepted: _load,
    Busy: _load,
    Claim: _loss,
    Evaluated: _loss,
    Prepared: _prepared,
    Updated: _updated,
    Beacon: _beacon,
    Ready: _version,
    Applied: _applied,
    Offer: _offer,
}
"""Why no honest peer says that, by the kind of message; empty if one may."""
