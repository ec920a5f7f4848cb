"""`swarmrt serve` with one dishonest habit: python -m tests.swarms.dishonest HABIT serve …"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import msgspec
import torch

from swarmrt.__main__ import main
from swarmrt.ids import PeerId
from swarmrt.messages import (
    Accepted,
    Admit,
    Applied,
    Beacon,
    Claim,
    Forward,
    Prepare,
    Prepared,
    Ready,
    Refused,
)
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.scheduler.events import Event, Received
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.peer.core import PeerCore

Answer = Callable[[PeerCore, Event], list[Instruction] | None]  # None goes on honestly
Change = Callable[[Send], Send]


def saying(*kinds: type[msgspec.Struct], **fields: object) -> Change:
    """Return a habit of telling the trainer something else in messages of these kinds."""

    def change(send: Send) -> Send:
        if not isinstance(send.message, kinds):
            return send
        return Send(send.to, msgspec.structs.replace(send.message, **fields), send.payload)

    return change


def refuses(core: PeerCore, event: Event) -> list[Instruction] | None:
    match event:
        case Received(_, Prepare(epoch, step, number)):
            refusal = Refused(epoch, step, number, "my record differs", PeerId(""))
            return [core.seat.to_trainer(refusal)]
    return None


def accuses(core: PeerCore, event: Event) -> list[Instruction] | None:
    match event:
        case Received(_, Prepare(epoch, step, number, roster)):
            victim = next(peer for peer, _ in roster if peer != core.seat.me)
            return [core.seat.to_trainer(Refused(epoch, step, number, "it is cut off", victim))]
    return None


def takes_all_and_does_nothing(core: PeerCore, event: Event) -> list[Instruction] | None:
    match event:
        case Received(sender, Forward(work)):
            core.seat_core.computing.done += 1
            return [Send(sender, Accepted(work, 1e-6, 0.0))]
    return None


def never_loads(core: PeerCore, event: Event) -> list[Instruction] | None:
    match event:
        case Received(_, Admit(epoch, term, version)):
            core.seat.epoch, core.seat.term, core.seat.state = epoch, term, "loading"
            core.seat.version = version
            return []
    core.seat_core.computing.done += 1
    return None


CHANGES: dict[str, Change] = {
    "negative tokens": saying(Claim, tokens=-64),
    "huge tokens": saying(Claim, tokens=1 << 60),
    "another norm": saying(Prepared, squared_norm=1e-12),
    "a norm that is no number": saying(Prepared, squared_norm=math.nan),
    "another digest": saying(Ready, Applied, Beacon, digest="0" * 32),
    "a beacon from nowhere": saying(Beacon, version=10**9, done=1 << 61),
}
ANSWERS: dict[str, Answer] = {
    "refuses": refuses,
    "accuses": accuses,
    "takes all and does nothing": takes_all_and_does_nothing,
    "never loads": never_loads,
}
NOT_FINITE = "a gradient that is no number"
HABITS = (*CHANGES, *ANSWERS, NOT_FINITE)


def take_on(habit: str) -> None:
    """Make this process's peer dishonest."""
    if habit == NOT_FINITE:
        _spoil_gradients()
        return
    handle = PeerCore.handle
    answer, change = ANSWERS.get(habit), CHANGES.get(habit)

    def dishonest(self: PeerCore, event: Event, now: float) -> list[Instruction]:
        answered = answer(self, event) if answer is not None else None
        done = handle(self, event, now) if answered is None else answered
        if change is None:
            return done
        return [change(what) if isinstance(what, Send) else what for what in done]

    PeerCore.handle = dishonest  # type: ignore[method-assign]


def _spoil_gradients() -> None:
    backward = Stage.backward

    def spoiled(
        self: Stage,
        forwarded: Forwarded,
        output_grad: torch.Tensor | None,
        *,
        accumulate: bool = True,
        later: bool = False,
    ) -> torch.Tensor | None:
        gradient = backward(self, forwarded, output_grad, accumulate=accumulate, later=later)
        for step in (self.version, self.version + 1):
            self.gradients(step)[:1] = math.nan
        return gradient

    Stage.backward = spoiled  # type: ignore[method-assign]


if __name__ == "__main__":
    take_on(sys.argv.pop(1))
    main()
