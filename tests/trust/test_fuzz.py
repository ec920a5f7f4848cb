"""Peers of each stage in the midst of a run, who are told anything by anybody.

Whatever well-formed values a message has: no exception, what is sent can be sent, invariants hold,
and nothing piles up. A million of them: `scripts/test -m slow tests/trust/test_fuzz.py`.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable
from typing import Any

import pytest

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    ALL_MESSAGES,
    Accepted,
    Admit,
    Apply,
    Backward,
    Busy,
    FailedIn,
    Forward,
    FrameKind,
    GetFrame,
    Granted,
    Hail,
    Idle,
    Message,
    NoFrame,
    Part,
    PeerState,
    Prepare,
    Recover,
    Roster,
    Stale,
    Standing,
    TooSlow,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    DeadlinePassed,
    Event,
    ForwardDone,
    GradientCombined,
    PartSummed,
    PartUnfit,
    PeerLost,
    Received,
    SendFailed,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    CombineParts,
    Instruction,
    KeepGradient,
    KeepInput,
    LoadState,
    RunBackward,
    RunForward,
    RunWeightGradients,
    Send,
    StepOptimizer,
    Stop,
    SumPart,
)
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.wire.writing import encode

STAGES, MICROBATCHES, EVALUATED = 3, 4, 2
ME, TRAINER, STRANGER, REPLICA = map(PeerId, ("me", "trainer", "stranger", "replica"))
BEFORE = [PeerId("before1"), PeerId("before2")]
AFTER = [PeerId("after1"), PeerId("after2")]
NAMES = [ME, TRAINER, STRANGER, REPLICA, *BEFORE, *AFTER, PeerId(""), PeerId("x" * 4000)]
PEERS_WORDS = (Forward, Accepted, Busy, Backward, GetFrame, NoFrame, Part, Stale)
INTEGERS = [*range(-2, 9), 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63)]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e300, 1e-300, float("inf"), float("-inf"), float("nan")]


class Liar:
    """Makes messages up: each value is one that the run could have, or one that it could not."""

    def __init__(self, rng: random.Random, epoch: Callable[[], int]) -> None:
        self._rng, self._epoch = rng, epoch
        self._make: dict[Any, Callable[[], Any]] = {
            int: self._integer,
            float: lambda: rng.choice(FLOATS),
            str: lambda: rng.choice(
                ("", "d", "x" * 3000, "\x1b[2J[/b]", "\ud800".encode("utf-8", "replace").decode())
            ),
            bool: lambda: rng.random() < 0.5,
            PeerId: lambda: rng.choice(NAMES),
            MicrobatchId: self._microbatch,
            Work: lambda: Work(self._microbatch(), self._integer()),
            FrameKind: lambda: rng.choice(("output", "gradient")),
            FailedIn: lambda: rng.choice(("", "forward", "backward", "weights")),
            PeerState: lambda: rng.choice(("joining", "loading", "serving", "leaving")),
            Idle: lambda: rng.choice(("", "off", "nobody")),
            TooSlow: lambda: rng.choice(("link", "state", "round")),
            tuple[int, ...]: lambda: self._some((0, 1, 2), self._integer),
            tuple[PeerId, ...]: self._path,
            Roster: lambda: self._several(
                lambda: (rng.choice(NAMES), self._several(self._integer, 5)), 4
            ),
        }

    def message(self, kind: type[Message]) -> Message:
        hints = typing.get_type_hints(kind)
        values = {name: self._make[hints[name]]() for name in kind.__struct_fields__}
        if "epoch" in values and self._rng.random() < 0.9:
            values["epoch"] = self._epoch()
        return kind(**values)

    def _integer(self) -> int:
        rng = self._rng
        return rng.randrange(5) if rng.random() < 0.7 else rng.choice(INTEGERS)

    def _microbatch(self) -> MicrobatchId:
        return MicrobatchId(self._integer(), self._integer(), self._rng.random() < 0.1)

    def _path(self) -> tuple[PeerId, ...]:
        rng = self._rng
        if rng.random() < 0.6:  # one that is possible for a peer of some stage
            path = [*rng.choice(([ME, AFTER[0], AFTER[1]], [BEFORE[0], ME, AFTER[0]],
                                 [BEFORE[1], BEFORE[0], ME]))]  # fmt: skip
            return tuple(path[: rng.choice((1, 2, 3, 3, 3))])
        return self._several(lambda: rng.choice(NAMES), 5)

    def _some(self, possible: tuple[int, ...], other: Callable[[], int]) -> tuple[int, ...]:
        if self._rng.random() < 0.7:
            return tuple(item for item in possible if self._rng.random() < 0.7)
        return self._several(other, 6)

    def _several(self, make: Callable[[], Any], most: int) -> tuple[Any, ...]:
        return tuple(make() for _ in range(self._rng.randrange(most)))


class Playing:
    """A core with what its world would answer, and an honest trainer and neighbours."""

    def __init__(self, stage: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stage, self.now = stage, 0.0
        self.granted: set[MicrobatchId] = set()  # whose gradients were honestly asked for
        self.outcomes: list[Event] = []  # of what runs
        self.liar = Liar(self.rng, lambda: self.core.seat.epoch)
        self.start()

    def start(self) -> None:
        self.core = PeerCore(
            PeerSettings(
                me=ME,
                trainer=TRAINER,
                stage=self.stage,
                num_stages=STAGES,
                seed=0,
                queue_s=5.0,
                gradient_bytes=9 << 20,
                retain_bytes=1000,
                record_ttl_s=15.0,
                most_left=self.stage,
                staleness=self.rng.choice((0, 1)),
                microbatches=MICROBATCHES,
                eval_microbatches=EVALUATED,
            )
        )
        self.outcomes.clear()
        self.granted.clear()
        self.feed(Started(0, "d0"))
        self.admit()

    def admit(self) -> None:
        seat = self.core.seat
        version = min(seat.version, 1 << 40)
        self.feed(
            Received(TRAINER, Admit(max(1, seat.epoch), seat.term + 1, version, "", -1, 0.0, ()))
        )
        for before, after in zip(BEFORE, AFTER, strict=True):
            self.feed(Received(TRAINER, Standing(seat.epoch, self.stage - 1, before, True)))
            self.feed(Received(TRAINER, Standing(seat.epoch, self.stage + 1, after, True)))

    def feed(self, event: Event) -> list[Instruction]:
        self.now += self.rng.choice((0.001, 0.1))
        instructions = self.core.handle(event, self.now)
        self.core.validate()
        self._check_bounds()
        for instruction in instructions:
            self._act(instruction)
        return instructions

    def _check_bounds(self) -> None:
        core = self.core
        names = len(NAMES) + 4
        open_steps = 2 + core.seat.settings.staleness
        assert len(core.seat_core.computing.tasks) <= open_steps * (MICROBATCHES + EVALUATED)
        assert len(core.seat_core.outputs._stranded) <= 4 * open_steps * MICROBATCHES
        assert len(core.seat_core.recovery._early) <= names
        for task in core.seat_core.computing.tasks:
            assert len(task.heirs) <= names and len(task.given) <= 2 * names

    def _act(self, instruction: Instruction) -> None:
        rng = self.rng
        match instruction:
            case Send(_, message):
                encode(message, ())
            case RunForward(mb) | RunBackward(mb) | RunWeightGradients(mb) if rng.random() < 0.05:
                runs_forward = isinstance(instruction, RunForward)
                what: FailedIn = "forward" if runs_forward else "backward"
                self.outcomes.append(ComputeFailed(mb, what, "it fails"))
            case RunForward(mb):
                self.outcomes.append(ForwardDone(mb, 0.1, 1.0, 5, 100))
            case RunBackward(mb):
                self.outcomes.append(BackwardDone(mb, 0.1, 100))
            case RunWeightGradients(mb):
                self.outcomes.append(WeightGradientsDone(mb, 0.1))
            case SumPart(step, number, index):
                unfit = PartUnfit(step, number, REPLICA, "has 3 values")
                fine = PartSummed(step, number, index)
                self.outcomes.append(unfit if rng.random() < 0.1 else fine)
            case CombineParts(step, number):
                self.outcomes.append(GradientCombined(step, number, "d", 1.0))
            case StepOptimizer(step):
                self.outcomes.append(Stepped(step + 1, f"d{step + 1}"))
            case LoadState(version, _, digest):
                loaded: Event = StateLoaded(version, digest or "d")
                if rng.random() < 0.3:
                    loaded = StateUnavailable(version, "nobody has it")
                self.outcomes.append(loaded)
            case Stop():
                self.outcomes.append(Started())  # it is started anew

    def answer(self) -> None:
        """What ran is done."""
        event = self.outcomes.pop(0)
        if isinstance(event, Started):
            self.start()
        else:
            self.feed(event)

    # ------------------------------------------------------------------ those who are honest

    def honest(self) -> None:
        """The run goes on."""
        rng, seat = self.rng, self.core.seat
        if not seat.is_serving and not self.outcomes and rng.random() < 0.2:
            self.admit()
        mb = MicrobatchId(seat.version, rng.randrange(MICROBATCHES))
        path = list(rng.choice(BEFORE) for _ in range(STAGES))
        path[self.stage :] = [ME, *(rng.choice(AFTER) for _ in range(STAGES - self.stage - 1))]
        choice = rng.randrange(8)
        task = self.core.seat_core.computing.tasks.get(mb)
        heirs = sorted(task.heirs) if task is not None else []
        match choice:
            case 0 | 1:
                sender = path[self.stage - 1] if self.stage else TRAINER
                message = Forward(
                    Work(mb, rng.randrange(1, 5)), seat.epoch, tuple(path[: self.stage])
                )
                self.feed(Received(sender, message))
            case 2 | 3 if heirs:
                heir = path[self.stage + 1] = heirs[0]
                self.granted.add(mb)
                self.feed(Received(heir, Backward(seat.epoch, mb, tuple(path), (0, 1, 2))))
            case 2 | 3 if self.stage == STAGES - 1:
                self.granted.add(mb)
                self.feed(Received(TRAINER, Granted(seat.epoch, mb, tuple(path), (0, 1, 2))))
            case 4:
                self.granted.add(mb)
                self.feed(Received(TRAINER, Recover(seat.epoch, mb, tuple(path), (self.stage,))))
            case 5:
                self._commit()
            case 6:
                name = rng.choice(("beacon", "rewire", "overdue", "grant"))
                self.feed(DeadlinePassed(name))
            case 7 if rng.random() < 0.02:
                self.feed(Received(TRAINER, Hail(min(seat.epoch, 1 << 40) + 1)))

    def _commit(self) -> None:
        seat = self.core.seat
        indices = tuple(sorted(self.core.seat_core.accumulators.indices(seat.version)))
        number = self.rng.randrange(1, 100)
        self.feed(
            Received(TRAINER, Prepare(seat.epoch, seat.version, number, ((ME, indices),), (), 10))
        )
        self.feed(Received(TRAINER, Apply(seat.epoch, seat.version, number, 1.0, False)))

    def lie(self, sender: PeerId) -> list[Instruction]:
        kinds = PEERS_WORDS if sender != TRAINER and self.rng.random() < 0.7 else ALL_MESSAGES
        return self.feed(Received(sender, self.liar.message(self.rng.choice(kinds))))


def play(stage: int, seed: int, events: int, liars: tuple[PeerId, ...]) -> Playing:
    playing = Playing(stage, seed)
    rng = playing.rng
    for _ in range(events):
        chance = rng.random()
        if chance < 0.5:
            liar = rng.choice(liars)
            instructions = playing.lie(liar)
            if liar == STRANGER:
                kept = KeepInput | KeepGradient | RunForward | RunBackward | RunWeightGradients
                assert not any(isinstance(i, kept) for i in instructions), instructions
        elif chance < 0.75 and playing.outcomes:
            playing.answer()
        elif chance < 0.97:
            playing.honest()
        elif chance < 0.98:
            playing.feed(PeerLost(rng.choice(NAMES[:8]), "it is gone"))
        else:
            message = playing.liar.message(rng.choice(ALL_MESSAGES))
            playing.feed(SendFailed(rng.choice(NAMES[:8]), message))
    return playing


@pytest.mark.parametrize("stage", range(STAGES))
def test_strangers_change_nothing(stage: int) -> None:
    """Not what is in the accumulators, and so not what the trainer finds when it commits."""
    for seed in range(10):
        playing = play(stage, seed, 300, (STRANGER,))
        assert playing.core.seat_core.accumulators.record <= playing.granted


@pytest.mark.parametrize("stage", range(STAGES))
@pytest.mark.parametrize("liar", ["stranger", "neighbours", "replica", "trainer", "all"])
def test_anything_may_be_said_by_anybody(stage: int, liar: str) -> None:
    everybody = {
        "stranger": (STRANGER,),
        "neighbours": (*BEFORE, *AFTER),
        "replica": (REPLICA,),
        "trainer": (TRAINER,),
    }
    liars = everybody.get(liar) or tuple(who for some in everybody.values() for who in some)
    for seed in range(4):
        play(stage, seed, 300, liars)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_million_of_them(seed: int) -> None:
    everybody = (STRANGER, *BEFORE, *AFTER, REPLICA, TRAINER)
    for stage in range(STAGES):
        for liars in (everybody, everybody[:-1]):
            for part in range(10):
                play(stage, 1000 + 100 * seed + part, 900, liars)
