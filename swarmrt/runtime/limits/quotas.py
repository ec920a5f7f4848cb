"""The quotas of each other end of a link: links, memory, messages.

|           | links                      | messages         | payloads   | unfinished      |
|-----------|----------------------------|------------------|------------|-----------------|
| known     | its own, with streams      | the run's pace   | of the run | its share       |
| strangers | 2, of 32 for all strangers | few              | of probes  | two probes each |

Known are the trainer, the members of a run, and who was invited. Which kinds of messages are taken
from whom is for the door to say. Whoever says more than the run can have use for loses its link.
Everything that is refused is counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from swarmrt.config import RunConfig
from swarmrt.errors import WireError
from swarmrt.ids import BETWEEN_PROCESSES, PeerId, Seats
from swarmrt.messages import (
    Backward,
    Facts,
    Forward,
    Message,
    Part,
    Probe,
    Probed,
    Recover,
    StateChunk,
)
from swarmrt.runtime.access.door import Door
from swarmrt.runtime.limits.rates import Bucket, Rate
from swarmrt.runtime.state.offering import CHUNK_BYTES
from swarmrt.scheduler.peer.updating.cutting import MAX_PART_BYTES
from swarmrt.trust.sealing import TAG_BYTES
from swarmrt.wire.kinds import OF_CONNECTIONS, Unknown
from swarmrt.wire.limits import Limits
from swarmrt.wire.memory import Account, MemoryBudget
from swarmrt.wire.tensors import ALIGNMENT

MIB = 1 << 20
PART_SLACK_BYTES = 64  # parts differ by one value, and are padded
MAX_PROBE_BYTES = 4 * MIB  # of payload, either way

MOST_REMEMBERED = 1024  # peers without a link whose pace is remembered
LEAST_BUDGET_BYTES = 1 << 30
SHARES = 2  # in the budget: so many peers may use theirs at the same time

HEADER_BYTES = 256  # as much of a header counts as one message
AHEAD = 20  # times what a configuration needs
MESSAGES_A_MICROBATCH = 4  # from one peer: a forward, its answer, a gradient, a receipt
MESSAGES_A_STEP = 64  # from one peer, besides: standings, the commit, parts
LEAST_PACE = Rate(5000, 5000)  # messages: a step may be short
UNBOUNDED = Rate(float("inf"), 0.0)
STRANGERS_PACE = Rate(64, 16)
STRANGERS_SHARE_BYTES = 2 * MAX_PROBE_BYTES
STRANGERS = Limits.each(16 << 10, {Probe: MAX_PROBE_BYTES, Probed: MAX_PROBE_BYTES})


def pace_of(microbatches: int, seats: int = 1) -> Rate:
    """Return how many messages one seat may say to so many, when a step has so many microbatches:
    20 steps at once, and 20 more each second."""
    need = AHEAD * (MESSAGES_A_MICROBATCH * microbatches + MESSAGES_A_STEP)
    return Rate(seats * max(need, LEAST_PACE.most), seats * max(need, LEAST_PACE.per_s))


@dataclass(eq=False)
class Quota:
    """The quota of one peer, on all of its connections."""

    peer: PeerId
    is_stranger: bool
    account: Account
    words: Bucket
    connections: int = 0


class Quotas:
    """The quotas of all peers."""

    def __init__(
        self,
        known: Limits,
        connections: int,
        pace: Rate = UNBOUNDED,
        *,
        door: Door,
        refused: Counter[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of messages of known peers `known` bounds the sizes and `pace` the number; each may use
        so many connections at a time. A stranger may become known, by what it shows. The `door` is
        asked last about each message. What is refused is counted in `refused`. `now` gives seconds.
        """
        self._known, self._pace = known, pace
        self._door, self._now = door, now
        self.refused: Counter[str] = Counter() if refused is None else refused
        # One message on each connection, and on each of a link that broke and is not found out yet.
        self._share_bytes = 2 * connections * known.largest_bytes
        self.budget = MemoryBudget(max(SHARES * self._share_bytes, LEAST_BUDGET_BYTES))
        self._quotas: dict[PeerId, Quota] = {}

    def is_stranger(self, peer: PeerId) -> bool:
        return not self._door.is_known(peer)

    def was_stranger(self, peer: PeerId) -> bool:
        """Return whether a peer has been nothing else, as long as it has had links."""
        quota = self._quotas.get(peer)
        return quota is not None and quota.is_stranger

    def limits(self, quota: Quota) -> Limits:
        """Return the limits of what the peer sends, once it has said hello."""
        if quota.is_stranger == self._door.is_known(quota.peer):
            quota.is_stranger = not quota.is_stranger
            quota.words.change(STRANGERS_PACE if quota.is_stranger else self._pace_of(quota.peer))
            quota.account.most_bytes = (
                STRANGERS_SHARE_BYTES if quota.is_stranger else self._share_bytes
            )
        return STRANGERS if quota.is_stranger else self._known

    def _pace_of(self, peer: PeerId) -> Rate:
        """Return how much a peer may say: each of its seats as much as any."""
        seats = self._door.num_seats(peer)
        return Rate(seats * self._pace.most, seats * self._pace.per_s)

    def enter(self, peer: PeerId, evict: Callable[[str], None]) -> Quota:
        """Count one more connection of this peer; `leave` when it has ended. `evict` ends all of
        them."""
        quota = self._quotas.pop(peer, None)
        if quota is None:
            self._forget_some()
            account = self.budget.open(STRANGERS_SHARE_BYTES, evict)
            quota = Quota(peer, True, account, Bucket(STRANGERS_PACE, self._now()))
        self._quotas[peer] = quota
        self.limits(quota)
        quota.connections += 1
        self._door.came(peer)
        return quota

    def leave(self, quota: Quota) -> None:
        quota.connections -= 1
        if not quota.connections:
            self._door.left(quota.peer)

    def check(
        self,
        quota: Quota,
        message: Message,
        payload_bytes: int,
        header_bytes: int,
        seats: Seats = BETWEEN_PROCESSES,
    ) -> bool:
        """Return whether to take a message of the peer; False passes over it. Raises WireError when
        the peer says too much."""
        words = quota.words
        words.left -= 1 + header_bytes // HEADER_BYTES
        if words.left < 0:  # so the clock is looked at now and then
            self._fill(words)
        if isinstance(message, Unknown):
            self.refused["unknown kinds"] += 1
            return False
        if isinstance(message, OF_CONNECTIONS):
            return True
        return self._door.may_say(quota.peer, type(message), seats)

    def _fill(self, words: Bucket) -> None:
        words.fill(self._now())
        if words.left < 0:
            self.refused["too many messages"] += 1
            raise WireError(
                f"it says more than {words.rate.per_s:.0f} messages a second, which is more than "
                "this run has use for"
            )

    def _forget_some(self) -> None:
        """Forget those that have no connection any more, the ones first that were here first."""
        if len(self._quotas) < MOST_REMEMBERED:
            return
        gone = [peer for peer, quota in self._quotas.items() if not quota.connections]
        for peer in gone[: MOST_REMEMBERED // 2]:
            self.budget.close(self._quotas.pop(peer).account)


def payloads_of(config: RunConfig) -> dict[type[Message], int]:
    """Return the most bytes that payloads of each kind have, as far as the configuration tells."""
    batch = config.batch.microbatch * config.model.sequence
    chunk_bytes = 8 * config.averaging.chunk if config.averaging.is_decoupled else 0
    ids, sealed = _padded(8 * batch), _padded(8 * batch + TAG_BYTES)
    known: dict[type[Message], int] = {
        Recover: ids + sealed,
        Part: MAX_PART_BYTES + PART_SLACK_BYTES + chunk_bytes,
        StateChunk: CHUNK_BYTES,
        Probe: MAX_PROBE_BYTES,
        Probed: MAX_PROBE_BYTES,
        Facts: MAX_PROBE_BYTES,
    }
    if config.model.kind == "decoder":  # what a user's own layers give is theirs to say
        itemsize = 8 if config.model.dtype == "float64" else 4
        activations = _padded(batch * config.model.width * itemsize)
        known[Forward] = max(ids, activations) + sealed
        known[Backward] = activations
    return known


def _padded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % ALIGNMENT
