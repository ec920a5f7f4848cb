"""A PeerCore that serves stage 1, for tests to feed."""

from __future__ import annotations

import math
from typing import Any

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import Admit, Backward, Forward, Message, Standing
from swarmrt.scheduler.events import (
    BackwardDone,
    Event,
    ForwardDone,
    Received,
    Started,
)
from swarmrt.scheduler.instructions import Instruction, Send, StartDeadline
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.peer.updating.sync.reducing import Reducing
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions
from swarmrt.scheduler.settings import MANY, PeerSettings

ME, TRAINER, UP, UP2, A, B = map(PeerId, ["me", "trainer", "up", "up2", "a", "b"])
MB = MicrobatchId(0, 0)
TURN_S = 0.001  # from one event to the next


class Peer:
    """A served peer of a stage, by default 1; it checks its invariants after every event.

    UP and UP2 are the replicas of the stage before, A and B those of the next one.
    """

    def __init__(
        self,
        num_stages: int = 3,
        queue_s: float = 10.0,
        retain_bytes: int = 1 << 20,
        most_left: int = 0,
        staleness: int = 0,
        fresh_steps: int = 0,
        microbatches: int = 2000,
        stage: int = 1,
        key: str = "",
        trainer_gone_s: float = math.inf,
        me: PeerId = ME,
        gradient_bytes: int = 1000,
        wire_bytes: int = 0,
        update_bytes: int = 0,
        local_from: int = MANY,
        local_batch: int = 0,
        most_late: float = 1.0,
        holds: int = 0,
    ) -> None:
        settings = PeerSettings(
            me=me,
            trainer=TRAINER,
            stage=stage,
            num_stages=num_stages,
            seed=0,
            queue_s=queue_s,
            gradient_bytes=gradient_bytes,
            retain_bytes=retain_bytes,
            record_ttl_s=15.0,
            most_left=most_left,
            staleness=staleness,
            fresh_steps=fresh_steps,
            microbatches=microbatches,
            eval_microbatches=2,
            trainer_gone_s=trainer_gone_s,
            wire_bytes=wire_bytes,
            update_bytes=update_bytes,
            local_from=local_from,
            local_batch=local_batch,
            most_late=most_late,
            holds=holds,
        )
        self.core = PeerCore(settings)
        self.now = 0.0
        self.feed(Started(0, "initial"))
        self.get(Admit(1, 1, 0, "", -1, 0.0, (), key))
        for before, after in zip((UP, UP2), (A, B), strict=True):
            self.get(Standing(1, stage - 1, before, True))
            self.get(Standing(1, stage + 1, after, True))

    def feed(self, event: Event) -> list[Instruction]:
        """Without deadlines, which are not what these tests are about."""
        self.now += TURN_S
        instructions = self.core.handle(event, self.now)
        self.core.validate()
        return [i for i in instructions if not isinstance(i, StartDeadline)]

    def get(self, message: Message, sender: PeerId = TRAINER) -> list[Instruction]:
        return self.feed(Received(sender, message))

    def forward(self, mb: MicrobatchId = MB, attempt: int = 1) -> list[Instruction]:
        return self.get(Forward(Work(mb, attempt), 1, (UP,)), UP)

    def computed(self, mb: MicrobatchId = MB) -> list[Instruction]:
        return self.feed(ForwardDone(mb, 1.0, 7.0, 5, 100))

    def pushed(self, mb: MicrobatchId = MB) -> PeerId:
        """Take a forward, compute it, push it; to whom."""
        self.forward(mb)
        return sent(self.computed(mb), Forward)[0][0]

    def heir(self, mb: MicrobatchId = MB) -> PeerId:
        """To whom its output was given."""
        task = self.core.seat_core.computing.tasks.get(mb)
        assert task is not None and task.pushed_to is not None
        return task.pushed_to

    @property
    def reducing(self) -> Reducing:
        versions = self.core.seat_core.versions
        assert isinstance(versions, SyncVersions)
        return versions.reducing

    def accumulate(self, mb: MicrobatchId = MB) -> list[Instruction]:
        """All the way to the receipt."""
        to = self.pushed(mb)
        self.get(Backward(1, mb, (UP, ME, to), (0, 1, 2)), to)
        return self.feed(BackwardDone(mb, 1.0, 100))


def mb(index: int, step: int = 0) -> MicrobatchId:
    return MicrobatchId(step, index)


def sent(instructions: list[Instruction], kind: type[Message]) -> list[tuple[PeerId, Any]]:
    return [
        (i.to, i.message) for i in instructions if isinstance(i, Send) and type(i.message) is kind
    ]
