"""A peer's seat in a run: what it was admitted as, and which version it holds.

The parts of a peer's core share it. Only the core itself changes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Message, PeerState
from swarmrt.recorded import Recorded
from swarmrt.scheduler.instructions import Send

MANY = 1 << 31  # where a log's settings do not say how many


class PeerSettings(Recorded, frozen=True):
    me: PeerId
    trainer: PeerId
    stage: int
    num_stages: int
    seed: int
    queue_s: float
    gradient_bytes: int  # of the stage
    retain_bytes: int  # frames kept for recovery
    record_ttl_s: float  # how long the directory may name a peer that is gone
    most_left: int = 0  # microbatches whose weights' gradients backward may leave for later
    staleness: int = 0  # versions between the weights that a step runs on and those it updates
    microbatches: int = MANY  # in a step
    eval_microbatches: int = MANY  # in an evaluation
    trainer_gone_s: float = math.inf  # for which it waits for a trainer that is gone
    wire_bytes: int = 0  # of a gradient as it travels; 0 where a log does not say
    update_bytes: int = 0  # of parameters and moments, as owners of parts give them


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
    skipping: int = -1  # the step of which nothing is to be computed any more

    @property
    def me(self) -> PeerId:
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

    @property
    def newest_step(self) -> int:
        """Return the newest step that this version can compute."""
        return self.version + self.settings.staleness

    def skips(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is of a step that is skipped."""
        return microbatch.step == self.skipping and not microbatch.held_out

    def to_trainer(self, message: Message) -> Send:
        return Send(self.settings.trainer, message)
