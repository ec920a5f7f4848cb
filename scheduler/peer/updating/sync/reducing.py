"""The all-reduces of a seat: that of its version, and those that it will follow.

Rules:
- The newest round of a step replaces the earlier ones, whose parts are dropped.
- A peer combines a round, and applies it, when its version is that round's step. One that still
  loads its state keeps the sums and the Applies of the steps that it misses, and catches up.
- What a newcomer keeps so has a bound in bytes (`following`).
- Parts may come before the Prepare that explains them; of each sender a few are kept, and in all
  as many as a round has (`cutting`).
"""

from __future__ import annotations

from msgspec.structs import replace

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Apply, Part, Prepare, Update
from swarmrt.scheduler.events import GradientCombined, PartSummed, PartUpdated, UpdateJoined
from swarmrt.scheduler.following import Store
from swarmrt.scheduler.instructions import (
    CombineParts,
    DropPart,
    DropRound,
    Instruction,
    KeepPart,
)
from swarmrt.scheduler.peer.updating.all_reduce import NOBODY, AllReduce
from swarmrt.scheduler.peer.updating.cutting import most_early

MAX_EARLY_OF_ONE = 32  # early parts of one sender: 128 MiB


class Reducing:
    def __init__(self, me: SeatId, gradient_bytes: int, update_bytes: int, store: Store) -> None:
        """`store` is that of a newcomer at this stage."""
        self._me, self._sizes, self._store = me, (gradient_bytes, update_bytes), store
        self._most_early = most_early(gradient_bytes)
        self.most_behind = store.most_steps(by_owners=False)
        self._rounds: dict[int, AllReduce] = {}  # by step
        self._applies: dict[int, Apply] = {}  # by step
        self._early: dict[tuple[SeatId, Part], None] = {}
        self._void_below: dict[int, int] = {}  # by step: rounds before this one are void

    def round(self, step: int) -> AllReduce | None:
        return self._rounds.get(step)

    def begin(self, prepare: Prepare) -> list[Instruction]:
        """Take part in a round, or listen to it."""
        earlier = self._rounds.get(prepare.step)
        if earlier is not None and prepare.round <= earlier.prepare.round:
            return []
        if self._me in prepare.listeners and not self._has_room_for_step(prepare):
            return []
        void: list[Instruction] = [DropRound(*earlier.key)] if earlier is not None else []
        void += self._void_early(prepare.step, prepare.round)
        round_ = self._rounds[prepare.step] = AllReduce(self._me, prepare, *self._sizes)
        early = [(s, p) for s, p in self._early if (p.step, p.round) == round_.key]
        for entry in early:
            del self._early[entry]
        instructions = [*void, *round_.start()]
        for sender, part in early:
            if round_.awaits(sender, part):
                instructions += round_.part_arrived(sender, part)
            else:
                key = (*round_.key, part.index)
                instructions.append(DropPart(sender, *key, part.summed, part.updated))
        return instructions

    def _has_room_for_step(self, prepare: Prepare) -> bool:
        """Return whether a newcomer keeps one more step: the trainer asks nobody for too many."""
        others = (r.prepare for step, r in self._rounds.items() if step != prepare.step)
        kept_bytes = sum(self._store.step_bytes(by_owners=p.by_owners) for p in others)
        return self._store.has_room(kept_bytes, by_owners=prepare.by_owners)

    def _void_early(self, step: int, newest: int) -> list[Instruction]:
        """Drop what has come for earlier rounds of the step than this one: they are void, though
        this peer may never have heard of them."""
        newest = self._void_below[step] = max(newest, self._void_below.get(step, 0))
        past = [(s, p) for s, p in self._early if p.step == step and p.round < newest]
        for entry in past:
            del self._early[entry]
        rounds = dict.fromkeys((part.step, part.round) for _, part in past)
        return [DropRound(*key) for key in rounds]

    def void(self, step: int) -> list[Instruction]:
        """Void a round that is under way: what it reduces changes, so it cannot count."""
        round_ = self._rounds.get(step)
        if round_ is None or round_.prepare.skip:
            return []
        del self._rounds[step]
        self._void_below[step] = round_.prepare.round + 1
        return [DropRound(*round_.key)]

    def part(self, sender: PeerId, part: Part, version: int) -> list[Instruction]:
        key = (part.step, part.round, part.index)
        keep = KeepPart(sender, *key, part.summed, updated=part.updated)
        round_ = self._rounds.get(part.step)
        if round_ is not None and round_.prepare.round == part.round:
            if not round_.awaits(sender, part):
                return []
            updates = round_.update if part.updated else None
            keep = replace(keep, parts=round_.parts if updates is None else updates.parts)
            return [keep, *round_.part_arrived(sender, part)]
        newer = part.round >= self._void_below.get(part.step, 0)
        near = version <= part.step <= version + self.most_behind + 1
        if not newer or not near or not self._has_room_for(sender):
            return []
        self._early[sender, part] = None
        return [keep]

    def _has_room_for(self, sender: PeerId) -> bool:
        its = sum(other == sender for other, _ in self._early)
        return its < MAX_EARLY_OF_ONE and len(self._early) < self._most_early

    def awaited(self) -> int | None:
        """Return the oldest round of which parts are still to come, if there is one: who cannot
        follow awaits ever more of them."""
        rounds = (r.prepare.round for r in self._rounds.values() if r.is_coming)
        return min(rounds, default=None)

    def part_summed(self, event: PartSummed) -> list[Instruction]:
        round_ = self._rounds.get(event.step)
        if round_ is None or round_.prepare.round != event.round:
            return []
        return round_.part_summed(event.index)

    def combined(self, event: GradientCombined) -> AllReduce | None:
        """Take note that a gradient is combined. Return its round; None if that is void by now."""
        round_ = self._rounds.get(event.step)
        if round_ is None or round_.prepare.round != event.round:
            return None
        round_.combined = (event.digest, event.squared_norm)
        return round_

    # ------------------------------------------------------------------ updates by owners

    def update(self, message: Update) -> list[Instruction]:
        """Make this peer's parts of the next version's state, once."""
        round_ = self._rounds.get(message.step)
        if round_ is None or round_.prepare.round != message.round or round_.combined is None:
            return []
        update = round_.update
        return update.begin(message.norm) if update is not None and update.norm is None else []

    def part_updated(self, event: PartUpdated) -> list[Instruction]:
        round_ = self._of(event)
        if round_ is None or round_.update is None:
            return []
        return round_.update.part_updated(event.index)

    def joined(self, event: UpdateJoined) -> AllReduce | None:
        """Take note that an update by owners is here. Return its round; None if that is void."""
        round_ = self._of(event)
        if round_ is None or round_.update is None:
            return None
        round_.update.digest = event.digest
        return round_

    def _of(self, event: PartUpdated | UpdateJoined) -> AllReduce | None:
        round_ = self._rounds.get(event.step)
        return round_ if round_ is not None and round_.prepare.round == event.round else None

    # ------------------------------------------------------------------ going on

    def validate(self) -> None:
        """Check that what is kept for rounds to come is bounded."""
        most = self.most_behind
        assert len(self._early) <= self._most_early and len(self._applies) <= 2 * most + 4
        assert len(self._void_below) <= 2 * most + 4
        assert all(p.round >= self._void_below.get(p.step, 0) for _, p in self._early)
        assert len(self._rounds) <= most + 2, self._rounds.keys()

    def apply(self, message: Apply) -> None:
        self._applies[message.step] = message

    def waits_for(self, version: int) -> SeatId:
        """Return whom the round of this version waits for here, or nobody."""
        round_ = self._rounds.get(version)
        return round_.waits_for() if round_ is not None else NOBODY

    def prepared(self, version: int) -> int:
        """Return the round of which all is here that is to be applied to this version; or -1."""
        round_ = self._rounds.get(version)
        return round_.prepare.round if round_ is not None and round_.is_ready else -1

    def next(self, version: int) -> list[Instruction]:
        """Return what brings this version on: combine its parts, or apply their sum."""
        round_ = self._rounds.get(version)
        if round_ is None:
            return []
        if round_.is_whole and not round_.is_combining:
            round_.is_combining = True
            return [CombineParts(*round_.key, round_.parts)]
        if round_.update is not None and (joins := round_.update.join()):
            return joins
        apply = self._applies.get(version)
        if apply is None or not round_.is_ready or apply.round != round_.prepare.round:
            return []
        return [round_.step(apply.norm, snapshot=apply.snapshot)]

    def is_spoilt(self, version: int) -> bool:
        """Return whether what is to be applied to this version is not what others apply: somebody
        has given this peer other parts than them."""
        round_, apply = self._rounds.get(version), self._applies.get(version)
        if round_ is None or apply is None or apply.round != round_.prepare.round:
            return False
        return round_.is_not(apply.digest)

    def stepped(self, version: int) -> list[Instruction]:
        """Forget what led to this version, which is made."""
        past = [step for step in self._rounds if step < version]
        drops: list[Instruction] = [DropRound(*self._rounds.pop(step).key) for step in past]
        self._applies = {step: a for step, a in self._applies.items() if step >= version}
        self._void_below = {s: least for s, least in self._void_below.items() if s >= version}
        early = [(sender, part) for sender, part in self._early if part.step < version]
        drops += [DropRound(part.step, part.round) for _, part in early]
        for entry in early:
            del self._early[entry]
        return drops

    def clear(self, *, but_prepared: int | None = None) -> list[Instruction]:
        """Void all rounds, but for one that is whole at this version and only waits for Apply."""
        kept = self._rounds.get(but_prepared) if but_prepared is not None else None
        if kept is not None and not kept.is_closed:
            kept = None
        void = [round_ for round_ in self._rounds.values() if round_ is not kept]
        drops: list[Instruction] = [DropRound(*round_.key) for round_ in void]
        drops += [DropRound(part.step, part.round) for _, part in self._early]
        self._rounds = {kept.prepare.step: kept} if kept is not None else {}
        self._applies.clear()
        self._early.clear()
        self._void_below.clear()
        return drops
