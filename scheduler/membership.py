"""Who serves each stage, as the trainer sees it.

SEEN ── admitted ──→ ADMITTED ── has the version ──→ READY
  └───────────── lost, at any time: forgotten ───────────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from swarmrt.ids import PeerId


class Membership(StrEnum):
    SEEN = "seen"
    ADMITTED = "joining"
    READY = "ready"


@dataclass(slots=True)
class Member:
    peer: PeerId
    stage: int
    state: Membership = Membership.SEEN
    digest: str = ""  # of its parameters, at its newest version
    done: int = 0  # computations, by its last beacon
    loading: bool = False  # admitted without having the version yet
    leaving: bool = False  # gets nothing new, and goes after the commit


class Members:
    """The members of all stages. A peer serves one stage."""

    def __init__(self, num_stages: int) -> None:
        self.num_stages = num_stages
        self._members: dict[PeerId, Member] = {}

    def get(self, peer: PeerId) -> Member | None:
        return self._members.get(peer)

    def see(self, peer: PeerId, stage: int) -> Member | None:
        """The new member, or None if it is known."""
        if peer in self._members:
            return None
        member = self._members[peer] = Member(peer, stage)
        return member

    def lose(self, peer: PeerId) -> Member | None:
        return self._members.pop(peer, None)

    def of_stage(self, stage: int, *states: Membership) -> list[Member]:
        """In roster order."""
        return sorted(
            (
                member
                for member in self._members.values()
                if member.stage == stage and (not states or member.state in states)
            ),
            key=lambda member: member.peer,
        )

    def in_state(self, state: Membership) -> list[Member]:
        return [member for member in self._members.values() if member.state is state]

    def ready(self, stage: int) -> tuple[PeerId, ...]:
        return tuple(member.peer for member in self.of_stage(stage, Membership.READY))

    def holders(self, stage: int) -> list[Member]:
        """Who has the stage's current version, whether it has said so in this epoch or not."""
        admitted = self.of_stage(stage, Membership.ADMITTED, Membership.READY)
        return [member for member in admitted if not member.loading]

    @property
    def counts(self) -> tuple[int, ...]:
        """Ready replicas by stage."""
        return tuple(len(self.ready(stage)) for stage in range(self.num_stages))

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())


class Absent:
    """Peers that were lost a short while ago: the directory still names them until their record
    has expired."""

    def __init__(self, record_ttl_s: float) -> None:
        self._record_ttl_s = record_ttl_s
        self._until: dict[PeerId, float] = {}

    def add(self, peer: PeerId, now: float) -> None:
        self._until[peer] = now + self._record_ttl_s

    def without(self, peers: tuple[PeerId, ...], now: float) -> tuple[PeerId, ...]:
        """Those that are not known to be gone."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        return tuple(peer for peer in peers if peer not in self._until)
