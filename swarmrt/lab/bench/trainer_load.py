"""The number of microbatches a second that the trainer's core takes through claim, receipts and
commit.

A swarm that answers at once, and of which nothing but the trainer's decisions is measured: no
computing, no sockets. `with_log` adds what a real trainer does beside deciding: messages are read
from and written to frames, and every event goes into the event log.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Beacon,
    Claim,
    Forward,
    Granted,
    Hail,
    Message,
    Prepare,
    Prepared,
    Ready,
)
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.scheduler.events import (
    CheckpointSaved,
    DeadlinePassed,
    Event,
    PeersSeen,
    Received,
    Started,
)
from swarmrt.scheduler.instructions import (
    Instruction,
    SaveCheckpoint,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.recording import Record
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.wire.limits import Limits
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.writing import FrameWriter, encode

STAGES, REPLICAS = 4, 2
TOKENS = 100  # of a microbatch
SERVICE_S = 0.01  # what peers say that a microbatch takes them
TICK_S = 1e-4  # of the clock that the core is given, between events
MAX_MESSAGE_BYTES = 1 << 20


class AnswersAtOnce:
    """Peers that do all they are told, in no time."""

    def __init__(self, stages: int, replicas: int) -> None:
        self.stages = {
            stage: tuple(PeerId(f"peer-{stage}-{number}") for number in range(replicas))
            for stage in range(stages)
        }
        self._stage = {peer: stage for stage, peers in self.stages.items() for peer in peers}
        self._terms: dict[PeerId, int] = {}
        self._turn = itertools.count()

    def answers(self, peer: PeerId, message: Message) -> Iterator[tuple[PeerId, Message]]:
        stage = self._stage[peer]
        match message:
            case Hail(epoch):
                yield peer, Beacon(epoch, 0, stage, "joining", 0, "0", -1, -1, 0.0, 0, 0, SERVICE_S)
            case Admit(epoch=epoch, term=term, version=version):
                self._terms[peer] = term
                yield peer, Ready(epoch, term, version, str(version))
            case Forward(work, epoch):
                turn = next(self._turn)
                rest = [peers[turn % len(peers)] for peers in list(self.stages.values())[1:]]
                yield peer, Accepted(work, SERVICE_S, 0.0)
                yield rest[-1], Claim(work, epoch, (peer, *rest), 1.0, TOKENS)
            case Granted(epoch, microbatch, path):
                for number, owner in reversed(list(enumerate(path))):
                    receipt = Accumulated(epoch, self._terms[owner], microbatch, number)
                    yield owner, receipt
            case Prepare(epoch=epoch, step=step, round=number):
                yield peer, Prepared(epoch, step, number, "", 1.0)
            case Apply(epoch=epoch, step=step):
                yield peer, Applied(epoch, step + 1, str(step + 1))


def microbatches_per_s(steps: int, microbatches: int, log: Path | None = None) -> float:
    """Measure a whole run of so many steps. With `log`, frames and the event log are counted too.

    Raises RunError when the run does not come to its end.
    """
    swarm = AnswersAtOnce(STAGES, REPLICAS)
    core = TrainerCore(
        TrainerSettings(
            me=PeerId("trainer"),
            seed=0,
            epoch=1,
            start_version=0,
            steps=steps,
            microbatches=microbatches,
            eval_every=0,
            eval_microbatches=0,
            checkpoint_every=0,
            needed=(REPLICAS,) * STAGES,
            start_digests=(),
            record_ttl_s=15.0,
            resume=False,
            microbatch_tokens=TOKENS,
            least_loss=0.0,
            secret="5e" * 16,
        )
    )
    events: deque[Event] = deque([Started(0, "")])
    events += [PeersSeen(stage, peers) for stage, peers in swarm.stages.items()]
    event_log = EventLog(log)
    reader, writer = FrameReader(Limits.of(MAX_MESSAGE_BYTES)), FrameWriter()
    spent, now = 0.0, 0.0
    deadlines: dict[str, float] = {}
    while events:
        now += TICK_S
        passed = next((name for name, at in deadlines.items() if at <= now), None)
        if passed is not None:
            del deadlines[passed]
        event = events.popleft() if passed is None else DeadlinePassed(passed)
        if log is not None and isinstance(event, Received):
            frame = b"".join(_frame(FrameWriter(), event.message))
            began = time.perf_counter()
            list(reader.feed(frame))
        else:
            began = time.perf_counter()
        instructions = core.handle(event, now)
        if log is not None:
            event_log.write(Record(now, event, instructions))
            for instruction in instructions:
                if isinstance(instruction, Send):
                    _frame(writer, instruction.message)
        spent += time.perf_counter() - began
        deadlines |= {i.name: i.at for i in instructions if isinstance(i, StartDeadline)}
        events += _outcomes(swarm, instructions)
        if any(isinstance(i, Stop) and not i.error for i in instructions):
            event_log.close()
            return steps * microbatches / spent
    raise RunError(f"the trainer stood still at step {core.run.version}")


def _frame(writer: FrameWriter, message: Message) -> list[bytes | memoryview]:
    writer.push(encode(message))
    return writer.next_frames()


def _outcomes(swarm: AnswersAtOnce, instructions: Sequence[Instruction]) -> Iterator[Event]:
    for instruction in instructions:
        match instruction:
            case Send(to, message):
                for sender, answer in swarm.answers(to, message):
                    yield Received(sender, answer)
            case SaveCheckpoint(version=version):
                yield CheckpointSaved(version)
