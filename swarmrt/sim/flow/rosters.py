"""The rosters: who serves each stage, and that all who send to it know.

A seat that is closed may still have something to send on, until it is through with all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmrt.ids import PeerId, SeatId, seat_of
from swarmrt.scheduler.wiring.policy import policy_of
from swarmrt.scheduler.wiring.stochastic import Wiring
from swarmrt.sim.flow.seats import Device, Seat

TRAINER = SeatId("trainer")


class Rosters:
    def __init__(self, stages: int, seed: int, policy: str, holds: int) -> None:
        self._seed, self._make, self._holds = seed, policy_of(policy), holds
        self.open: list[dict[SeatId, Seat]] = [{} for _ in range(stages)]
        self.by_name: dict[SeatId, Seat] = {}
        self._givers: list[dict[SeatId, Seat]] = [{} for _ in range(stages)]
        device = Device(TRAINER, 1.0)
        wiring = self._wiring(TRAINER, is_only_sender=True)
        self.trainer = Seat(TRAINER, device, -1, 0.0, wiring)

    def _wiring(self, name: str, *, is_only_sender: bool = False) -> Wiring:
        rng = random.Random(f"{self._seed} {name}")
        return Wiring(rng, is_only_sender=is_only_sender, make_policy=self._make)

    def seat(self, device: Device, stage: int, service_s: float) -> Seat:
        """Return a device's seat at a stage, which it may have had before."""
        seat = device.seats.get(stage)
        if seat is None:
            name = seat_of(PeerId(device.name), stage)
            seat = device.seats[stage] = Seat(name, device, stage, service_s, self._wiring(name))
        return seat

    def opens(self, seats: Sequence[Seat]) -> None:
        """Let seats serve from now on, all at once."""
        by_stage: dict[int, list[Seat]] = {}
        for seat in seats:
            seat.is_open = True
            by_stage.setdefault(seat.stage, []).append(seat)
        before = [list(givers.values()) for givers in self._givers]
        for stage, added in by_stage.items():
            for seat in added:
                self.open[stage][seat.name] = seat
                self._givers[stage][seat.name] = seat
                self.by_name[seat.name] = seat
        for stage, added in by_stage.items():
            senders = len(self.open[stage])
            for other in before[stage]:
                other.wiring.one_of(senders)
            for seat in added:
                seat.wiring.one_of(senders)
                if stage + 1 < len(self.open):
                    for taker in self.open[stage + 1].values():
                        self._tell(seat, taker)
            for giver in before[stage - 1] if stage else [self.trainer]:
                for seat in added:
                    self._tell(giver, seat)

    def closes(self, seat: Seat) -> None:
        """Let a seat get nothing more."""
        if not seat.is_open:
            return
        seat.is_open = False
        stage = seat.stage
        del self.open[stage][seat.name]
        for giver in self._givers[stage - 1].values() if stage else [self.trainer]:
            giver.wiring.remove(seat.name)
        senders = len(self.open[stage])
        for other in self.open[stage].values():
            other.wiring.one_of(senders)
        if not seat.held:
            self.is_through(seat)

    def is_through(self, seat: Seat) -> None:
        """Take note that a seat has nothing to send on any more."""
        self._givers[seat.stage].pop(seat.name, None)
        if not seat.is_gone:
            seat.device.seats.pop(seat.stage, None)

    def _tell(self, giver: Seat, taker: Seat) -> None:
        giver.wiring.add(taker.name, taker.said_s or taker.says_s)
        if self._holds:
            giver.wiring.limit(taker.name, self._holds)
