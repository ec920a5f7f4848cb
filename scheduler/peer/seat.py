"""A peer's seat in a run: what it was admitted as, and which version it holds.

The parts of a seat's core share it. Only those of membership and updating change it.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmrt.ids import SeatId
from swarmrt.messages import Message, PeerState
from swarmrt.scheduler.following import Store
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.settings import PeerSettings


@dataclass(slots=True)
class Seat:
    settings: PeerSettings
    epoch: int = -1
    term: int = 0
    version: int = 0
    digest: str = ""
    state: PeerState = "joining"
    key: bytes = b""  # of the trainer's seals for this peer; without it there are none
    is_draining: bool = False  # takes no new work
    is_stepping: bool = False  # the optimizer runs
    is_paused: bool = False  # its owner has the device
    made_by: tuple[int, float] = (-1, 0.0)  # round and norm of the update that made this version
    replicas: int = 0  # of its stage, in the last round that it was asked to take part in
    load_rests_in: tuple[int, int] | None = None  # epoch and term in which the next try waits

    @property
    def store(self) -> Store:
        """Return what a newcomer keeps here."""
        settings = self.settings
        gradient_bytes = settings.wire_bytes or settings.gradient_bytes
        return Store(gradient_bytes, settings.update_bytes)

    @property
    def me(self) -> SeatId:
        return self.settings.me

    @property
    def stage(self) -> int:
        return self.settings.stage

    @property
    def is_first(self) -> bool:
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        return self.stage == self.settings.num_stages - 1

    @property
    def is_serving(self) -> bool:
        return self.state == "serving"

    def to_trainer(self, message: Message) -> Send:
        return Send(self.settings.trainer, message)
