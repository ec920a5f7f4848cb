"""Stochastic wiring: which replica of the next stage gets the next microbatch.

A sender's estimates say what a microbatch costs where. Its subset says which replicas it uses, and
limits say which of these can take work now. Among those that can, the policy chooses.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable

from swarmrt.errors import RunError
from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import Estimates
from swarmrt.scheduler.wiring.iwrr import Interleaved
from swarmrt.scheduler.wiring.limits import Blocked, Held
from swarmrt.scheduler.wiring.policy import MakePolicy
from swarmrt.scheduler.wiring.subset import Change, Subset

MOST_WOKEN = 8  # in one choice, while others can take work: it takes no longer then
MOST_EXCHANGED = 8  # replicas that nothing can be given to, in one choice


class Wiring:
    """The replicas of one stage, as seen from one sender."""

    def __init__(
        self,
        rng: random.Random,
        *,
        is_only_sender: bool = True,
        make_policy: MakePolicy = Interleaved,
        estimates: Estimates | None = None,
    ) -> None:
        """`estimates` may be those of more replicas than these."""
        self.estimates = estimates or Estimates(is_only_sender=is_only_sender)
        self._policy = make_policy(self.estimates, rng)
        self._subset, self._blocked, self._held = Subset(rng), Blocked(), Held()
        self._seats: dict[SeatId, bool] = {}  # and whether the policy may choose it

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, seat: SeatId) -> bool:
        return seat in self._seats

    @property
    def peers(self) -> tuple[SeatId, ...]:
        return tuple(self._seats)

    # ------------------------------------------------------------------ who is there

    def set_peers(self, seats: Iterable[SeatId]) -> None:
        """Exactly these serve the stage now."""
        wanted = dict.fromkeys(sorted(seats))
        for seat in [known for known in self._seats if known not in wanted]:
            self.remove(seat)
        for seat in wanted:
            self.add(seat)

    def add(self, seat: SeatId, service_s: float = 0.0) -> None:
        """A replica serves the stage, perhaps again. It says that a microbatch takes it so long; 0
        for nothing."""
        is_new = seat not in self._seats
        if is_new:
            self._seats[seat] = False
            self.estimates.came(seat)
        self.estimates.says_of_itself(seat, service_s)
        if is_new:
            self._change(self._subset.add(seat))

    def remove(self, seat: SeatId) -> None:
        if seat in self._seats:
            if self._seats[seat]:
                self._policy.remove(seat)
            del self._seats[seat]
            self._blocked.forget(seat)
            self._held.limit(seat, 0)
            self.estimates.went(seat)
            self._change(self._subset.remove(seat))

    def one_of(self, senders: int) -> None:
        """Take note of how many senders there are, with this one: with many, each uses a part of
        the replicas."""
        self._change(self._subset.one_of(senders))

    # ------------------------------------------------------------------ choosing

    def choose(self, now: float, what: Hashable = None) -> SeatId | None:
        """Return the replica for one more microbatch; None if none can take work.

        `what` names it, where replicas can only hold so many: until it is `over`, or chosen for
        again, it counts there.
        """
        if len(self._held):
            self.over(what)
        changes = self._subset.renewed(now)
        if changes:
            self._change(changes)
        woken = 0
        while woken < MOST_WOKEN and (seat := self._blocked.next_over(now)) is not None:
            self._look_at(seat)
            woken += 1
        chosen = self._policy.choose(now)
        if chosen is None:
            chosen = self._choose_elsewhere(now)
        if chosen is None:
            if any(self._seats.values()):
                policy = type(self._policy).__name__
                raise RunError(f"wiring.policy: {policy} chose nobody, though some may take work")
            return None
        if not self._seats.get(chosen):
            policy = type(self._policy).__name__
            raise RunError(f"wiring.policy: {policy} chose {chosen}, which may take no work now")
        if what is not None:
            self._held.give(what, chosen)
            if self._held.is_full(chosen):
                self._look_at(chosen)
        return chosen

    def _choose_elsewhere(self, now: float) -> SeatId | None:
        """Return one that has only now come to be among those that can take work."""
        while (seat := self._blocked.next_over(now)) is not None:
            self._look_at(seat)
        chosen = self._policy.choose(now)
        tries = 0 if self._subset.is_all else MOST_EXCHANGED
        while chosen is None and tries:
            self._change(self._subset.exchange())
            chosen, tries = self._policy.choose(now), tries - 1
        return chosen

    def over(self, what: Hashable) -> None:
        """A microbatch is not held any more where it was given."""
        seat = self._held.over(what)
        if seat is not None:
            self._look_at(seat)

    def clear(self) -> None:
        """Nothing is held any more of what was given to anybody."""
        for seat in self._held.clear():
            self._look_at(seat)

    def block(self, seat: SeatId, until: float) -> None:
        """The replica refused work or could not be reached: nothing more for it until then."""
        if seat in self._seats:
            self._blocked.block(seat, until)
            self._look_at(seat)

    def limit(self, seat: SeatId, capacity: int) -> None:
        """The replica can hold so many microbatches; 0 for as many as there are."""
        self._held.limit(seat, capacity)
        self._look_at(seat)

    def _change(self, changes: list[Change]) -> None:
        for comes, goes in changes:
            if goes is not None:
                self.estimates.queue_forgotten(goes)
                self._look_at(goes)
            if comes is not None:
                self._look_at(comes)

    def _look_at(self, seat: SeatId) -> None:
        """Tell the policy whether it may choose a seat, where that has changed."""
        if seat not in self._seats:
            return
        may = seat in self._subset and seat not in self._blocked and not self._held.is_full(seat)
        if may != self._seats[seat]:
            self._seats[seat] = may
            if may:
                self._policy.add(seat)
            else:
                self._policy.remove(seat)

    def validate(self) -> None:
        """Check that the policy may choose those that can take work, and nobody else."""
        for seat, may in self._seats.items():
            is_free = seat not in self._blocked and not self._held.is_full(seat)
            assert may == (seat in self._subset and is_free), seat
        if isinstance(self._policy, Interleaved):
            self._policy.validate()
