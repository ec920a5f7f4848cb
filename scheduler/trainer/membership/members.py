"""The members that serve each stage, as the trainer sees them.

SEEN ── admitted ──→ ADMITTED ── has the version ──→ READY
  ↑                     │                              │
  └───────────── fenced: what it did is void ──────────┘     lost, at any time: forgotten
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from swarmrt.ids import NO_ISLAND, PeerId, SeatId, peer_of
from swarmrt.messages import Admit, Beacon, LeftOut, Path
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.trainer.membership.health import Health

MOST_SEEN = 1000  # that are not admitted, in all stages: anybody may send a beacon


class Membership(StrEnum):
    SEEN = "seen"
    ADMITTED = "joining"
    READY = "ready"


@dataclass(slots=True)
class Member:
    peer: SeatId
    stage: int
    state: Membership = Membership.SEEN
    term: int = 0  # of its newest admission
    admit: Admit | None = None  # its newest
    key: bytes = b""  # of seals for it, once it is admitted
    admitted_at: float = 0.0
    worked_at: float = -math.inf  # when something last came of its work: a claim or a receipt
    ready_at: float = -math.inf  # when it was last let in
    fenced_at: float = -math.inf  # when its work was last void
    late_since: float = -math.inf  # when the first flight began that was late since it last worked
    late_at: float = -math.inf  # when that was found late
    reached: int = 0  # the version that it has come to since
    came_on_at: float = 0.0  # when it last came to one, or bytes of what it lacks did
    times_held_for: int = 0  # that a commit was held for it since its admission
    dear: int = 0  # rounds in a row that it made longer than it is worth
    step_before_s: float = 0.0  # a step's time when it was let in; 0 when that was not known
    longer_s: tuple[float, float] = (0.0, 0.0)  # that steps take with it, and took before
    left_out: LeftOut | None = None  # why it has to wait, until it is admitted again
    named_weights: tuple[int, str] = (-1, "")  # version and digest, by its own word
    agreed: tuple[int, int, str] | None = None  # epoch, and those that the others have too
    most_served: int = 0  # replicas that its stage has had at once, since it came
    has_agreed: bool = False  # its weights were those of the others, after an update
    leaving: bool = False  # it wants to go, once others serve
    draining: bool = False  # it may: it gets nothing new, and goes after the commit
    is_arranged: bool = False  # of a process that serves where it helps most
    is_wanted: bool = False  # and this is where
    yields: bool = False  # it drains, and stands by afterwards
    suspect: bool = False  # gets nothing new until it is heard again
    wished: int = NO_ISLAND  # the island that it asked for at its newest admission
    home: int = NO_ISLAND  # the island that it belongs to, once it has one
    island: int = 0  # in which it works: another one, while its own has too few
    doubted_at: float | None = None  # since then its beacons were of another term, all of them
    beacon: Beacon | None = None  # its newest
    reminders: int = 0  # of its neighbours
    reminded_at: float = 0.0
    health: Health = field(default_factory=Health)
    told_s: float = BEACON_S  # the longest interval of beacons that it was told to keep
    told_at: float = -math.inf  # when it was last told one
    watched_until: float = -math.inf  # it is waited for, and beacons as often as in a small swarm
    spared: float = math.inf  # beacons of it that are still listened to, as many as may be at once
    spared_at: float = 0.0  # at this time

    @property
    def idle_since(self) -> float:
        """Return since when nothing has come of its work, for all that could."""
        return max(self.worked_at, self.ready_at)

    @property
    def is_spare(self) -> bool:
        """Return whether it is to take work only when a replica of its stage is lost."""
        is_one = self.beacon is not None and self.beacon.spare and not self.is_wanted
        return is_one and self.state is not Membership.READY

    @property
    def is_paused(self) -> bool:
        """Return whether its owner has the device for a while."""
        return self.beacon is not None and self.beacon.paused

    @property
    def gradient_s(self) -> float:
        """Return the seconds that a gradient takes over its link, by its own word, or 0."""
        return self.beacon.gradient_s if self.beacon is not None else 0.0

    @property
    def service_s(self) -> float:
        """Return the seconds of a forward and backward there, by its own word, or 0."""
        return self.beacon.service_s if self.beacon is not None else 0.0

    @property
    def holds(self) -> int:
        """Return how many microbatches it has room for, by its own word, or 0."""
        return self.beacon.holds if self.beacon is not None else 0

    def believed_s(self, beacon: Beacon) -> float:
        """Return within which time the next beacon follows after this one, by its own word: that is
        believed as far as this trainer has told it to take its time."""
        return min(max(beacon.every_s, BEACON_S), self.told_s)

    def says_of(self, version: int) -> str:
        """Return the digest that it has named for this version; empty for none."""
        if self.named_weights[0] == version:
            return self.named_weights[1]
        if self.beacon is not None and self.beacon.version == version:
            return self.beacon.digest
        return ""


class Members:
    """The members of all stages. A peer serves one stage."""

    def __init__(self, num_stages: int) -> None:
        self.num_stages = num_stages
        self._members: dict[SeatId, Member] = {}
        self._found: dict[tuple[object, ...], tuple[Member, ...]] = {}  # since the last change
        self._counts: tuple[int, ...] | None = None  # the same
        self._forgotten: list[Member] = []
        self._terms = 0

    def next_term(self) -> int:
        self._terms += 1
        return self._terms

    def get(self, peer: SeatId) -> Member | None:
        return self._members.get(peer)

    def see(self, peer: SeatId, stage: int) -> Member | None:
        """The new member, or None if it is known."""
        if peer in self._members:
            return None
        if len(self._members) >= MOST_SEEN:
            self._forget_a_silent_one()
        member = self._members[peer] = Member(peer, stage)
        self._has_changed()
        return member

    def becomes(self, member: Member, state: Membership) -> None:
        """Take note of what a member is from now on."""
        member.state = state
        self._has_changed()

    def is_at(self, member: Member, stage: int) -> None:
        """Take note of the stage of a member that may have started anew."""
        if member.stage != stage:
            member.stage = stage
            self._has_changed()

    def _has_changed(self) -> None:
        """Forget who is what: it is asked after every event, and changes rarely."""
        self._found.clear()
        self._counts = None

    def _forget_a_silent_one(self) -> None:
        """Forget, of those that are only seen, the longest silent one, if there are too many."""
        seen = self.in_state(Membership.SEEN)
        if len(seen) >= MOST_SEEN:
            silent = min(seen, key=lambda member: member.health.heard_at or -math.inf)
            self._forgotten += [silent] if silent.beacon is not None else []
            self.lose(silent.peer)

    def take_forgotten(self) -> list[Member]:
        """Return whom there were too many to remember, since this was asked last."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def lose(self, peer: SeatId) -> Member | None:
        self._has_changed()
        return self._members.pop(peer, None)

    def of_process(self, peer: PeerId) -> list[Member]:
        """Return the seats of a process."""
        return [member for member in self._members.values() if peer_of(member.peer) == peer]

    def of_stage(self, stage: int, *states: Membership) -> tuple[Member, ...]:
        """Return the members of the stage in roster order."""
        found = self._found.get((stage, *states))
        if found is None:
            found = self._found[stage, *states] = tuple(
                sorted(
                    (
                        member
                        for member in self._members.values()
                        if member.stage == stage and (not states or member.state in states)
                    ),
                    key=lambda member: member.peer,
                )
            )
        return found

    def waiting(self) -> list[Member]:
        """Return who is heard, is not admitted, and could be."""
        seen = self.in_state(Membership.SEEN)
        return [member for member in seen if member.beacon is not None and not member.is_paused]

    def paused(self) -> list[Member]:
        """Return whose owners have their devices for a while."""
        return [member for member in self._members.values() if member.is_paused]

    def bare_stages(self) -> list[int]:
        """Stages that nobody serves or is about to."""
        return [stage for stage in range(self.num_stages) if not self.holders(stage)]

    def in_state(self, state: Membership) -> tuple[Member, ...]:
        """Return the members in that state, in the order in which they were seen."""
        found = self._found.get((state,))
        if found is None:
            members = self._members.values()
            found = self._found[(state,)] = tuple(m for m in members if m.state is state)
        return found

    def is_ready(self, peer: SeatId, stage: int) -> bool:
        """Return whether it takes work of this stage."""
        member = self._members.get(peer)
        return member is not None and member.stage == stage and member.state is Membership.READY

    def is_astray(self, route: Path) -> bool:
        """Return whether a route passes somebody at a stage who takes work of another one."""
        for stage, peer in enumerate(route):
            member = self._members.get(peer)
            if member is not None and member.stage != stage and member.state is Membership.READY:
                return True
        return False

    def waits_for(self, peer: SeatId) -> SeatId:
        """Return whom it says that it waits for in a round: itself, another one, or nobody."""
        member = self._members.get(peer)
        beacon = member.beacon if member is not None else None
        return beacon.waits_for if beacon is not None else SeatId("")

    def ready(self, stage: int) -> tuple[SeatId, ...]:
        return tuple(member.peer for member in self.of_stage(stage, Membership.READY))

    def holders(self, stage: int) -> tuple[Member, ...]:
        """Return who has the stage's current version, or follows it from a state that it was
        given."""
        return self.of_stage(stage, Membership.ADMITTED, Membership.READY)

    @property
    def counts(self) -> tuple[int, ...]:
        """Ready replicas by stage."""
        if self._counts is None:
            stages = range(self.num_stages)
            self._counts = tuple(len(self.of_stage(s, Membership.READY)) for s in stages)
        return self._counts

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))
