"""What each other end may take of this process: links, memory, messages.

| role     | links                      | says                   | memory                          |
|----------|----------------------------|------------------------|---------------------------------|
| trainer  | its own, with streams      | anything, at its pace  | a share of the budget           |
| member   | its own, with streams      | anything, at its pace  | a share of the budget           |
| stranger | 2, of 32 for all strangers | probes, and few        | two probes                      |

A member that says more than the run can have use for loses its link; what a stranger may not say is
passed over. Everything that is refused is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from swarmrt.config import RunConfig
from swarmrt.errors import WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Backward, Forward, Message, Part, Probe, Probed, Recover, StateChunk
from swarmrt.runtime.rates import Bucket, Rate
from swarmrt.runtime.state import CHUNK_BYTES
from swarmrt.scheduler.rounds import MAX_PART_BYTES
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
STRANGERS_SAY = (Probe, Probed)
STRANGERS = Limits.each(16 << 10, {Probe: MAX_PROBE_BYTES, Probed: MAX_PROBE_BYTES})


class Role(Enum):
    """What the other end of a link is to this run."""

    TRAINER = "trainer"
    MEMBER = "member"
    STRANGER = "stranger"


def pace_of(microbatches: int) -> Rate:
    """How many messages one peer may say, when a step has so many microbatches: 20 steps at once,
    and 20 more each second."""
    need = AHEAD * (MESSAGES_A_MICROBATCH * microbatches + MESSAGES_A_STEP)
    return Rate(max(need, LEAST_PACE.most), max(need, LEAST_PACE.per_s))


Gate = Callable[[PeerId, Message, int], bool]
"""Whether a peer may say a message with so many bytes of payload: False passes over it, WireError
ends its link."""


@dataclass(eq=False)
class Quota:
    """One peer's, on all of its connections."""

    peer: PeerId
    role: Role
    account: Account
    words: Bucket
    connections: int = 0


class Quotas:
    """Those of all peers."""

    def __init__(
        self,
        member: Limits,
        connections: int,
        pace: Rate = UNBOUNDED,
        newcomers: Role = Role.MEMBER,
        gate: Gate = lambda peer, message, payload_bytes: True,
        refused: Counter[str] | None = None,
    ) -> None:
        """Of members' messages `member` bounds the sizes and `pace` the number; each may use so
        many connections at a time. `newcomers` is the role of those that have none yet. The `gate`
        is asked last about each message. What is refused is counted in `refused`."""
        self._member, self._pace = member, pace
        self._newcomers, self._gate = newcomers, gate
        self.refused: Counter[str] = Counter() if refused is None else refused
        # One message on each connection, and on each of a link that broke and is not found out yet.
        self._share_bytes = 2 * connections * member.largest_bytes
        self.budget = MemoryBudget(max(SHARES * self._share_bytes, LEAST_BUDGET_BYTES))
        self._roles: dict[PeerId, Role] = {}
        self._quotas: dict[PeerId, Quota] = {}

    def role(self, peer: PeerId) -> Role:
        return self._roles.get(peer, self._newcomers)

    def set_role(self, peer: PeerId, role: Role) -> None:
        """From now on, for links that are open too; `limits` are other ones then."""
        if role is self._newcomers:
            self._roles.pop(peer, None)
        else:
            self._roles[peer] = role
        quota = self._quotas.get(peer)
        if quota is not None and quota.role is not role:
            quota.role = role
            quota.words.change(self._pace_of(role))
            quota.account.most_bytes = self._share_of(role)

    def limits(self, peer: PeerId) -> Limits:
        """Of what the peer sends, once it has said hello."""
        return STRANGERS if self.role(peer) is Role.STRANGER else self._member

    def enter(self, peer: PeerId, evict: Callable[[str], None], now: float) -> Quota:
        """One more connection of this peer; `leave` when it has ended. `evict` ends all of them."""
        quota = self._quotas.pop(peer, None)
        if quota is None:
            self._forget_some()
            role = self.role(peer)
            account = self.budget.open(self._share_of(role), evict)
            quota = Quota(peer, role, account, Bucket(self._pace_of(role), now))
        self._quotas[peer] = quota
        quota.connections += 1
        return quota

    def leave(self, quota: Quota) -> None:
        quota.connections -= 1

    def check(
        self, quota: Quota, message: Message, payload_bytes: int, header_bytes: int, now: float
    ) -> bool:
        """Whether to take a message of the peer. False passes over it. Raises WireError when it
        says too much."""
        if not quota.words.take(1 + header_bytes // HEADER_BYTES, now):
            self.refused["too many messages"] += 1
            raise WireError(
                f"it says more than {quota.words.rate.per_s:.0f} messages a second, which is more "
                "than this run has use for"
            )
        if quota.role is Role.STRANGER and type(message) not in STRANGERS_SAY:
            self.refused[f"{type(message).__name__} of a stranger"] += 1
            return False
        return self._gate(quota.peer, message, payload_bytes)

    def _pace_of(self, role: Role) -> Rate:
        return STRANGERS_PACE if role is Role.STRANGER else self._pace

    def _share_of(self, role: Role) -> int:
        return 2 * MAX_PROBE_BYTES if role is Role.STRANGER else self._share_bytes

    def _forget_some(self) -> None:
        """Of those that have no connection any more, the ones that were here first."""
        if len(self._quotas) < MOST_REMEMBERED:
            return
        gone = [peer for peer, quota in self._quotas.items() if not quota.connections]
        for peer in gone[: MOST_REMEMBERED // 2]:
            self.budget.close(self._quotas.pop(peer).account)


def payloads_of(config: RunConfig) -> dict[type[Message], int]:
    """How large the payloads of each kind are at most, as far as the configuration tells it."""
    batch = config.batch.microbatch * config.model.sequence
    ids = _padded(8 * batch)
    known: dict[type[Message], int] = {
        Recover: 2 * ids,
        Part: MAX_PART_BYTES + PART_SLACK_BYTES,
        StateChunk: CHUNK_BYTES,
        Probe: MAX_PROBE_BYTES,
        Probed: MAX_PROBE_BYTES,
    }
    if config.model.kind == "decoder":  # what a user's own layers give is theirs to say
        itemsize = 8 if config.model.dtype == "float64" else 4
        activations = _padded(batch * config.model.width * itemsize)
        known[Forward] = max(ids, activations) + ids
        known[Backward] = activations
    return known


def _padded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % ALIGNMENT
