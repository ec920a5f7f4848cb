"""Schedules of faults, drawn from a seed and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from swarmrt.errors import UsageError, did_you_mean

KINDS = (
    "kill",
    "stop",
    "term",
    "cut",
    "slow",
    "radio",
    "hang",
    "pause-owner",
    "move",
    "join",
    "slow-newcomer",
    "directory",
    "daemon",
    "disk",
    "trainer",
    "bootstrap",
)
NEED_COMPANY = (
    "kill",
    "stop",
    "term",
    "cut",
    "radio",
    "hang",
    "pause-owner",
    "move",
)  # another replica must do the work meanwhile
LASTS = {  # seconds, from and to; for kill and term until the replacement, for trainer the resume
    "kill": (1.0, 4.0),
    "term": (1.0, 4.0),
    "stop": (1.0, 6.0),
    "cut": (0.5, 4.0),
    "slow": (1.0, 5.0),
    "radio": (2.0, 5.0),
    "hang": (2.0, 20.0),
    "pause-owner": (1.0, 8.0),
    "move": (2.0, 8.0),
    "directory": (2.0, 12.0),
    "disk": (2.0, 6.0),
    "trainer": (0.5, 2.0),
}
MOVE_FAILS = 0.5  # share of the moves that fail at one of their acts
PEER_ACTS = (  # of a move, in its order: a second seat, its state, the switch, the first seat
    "move.{}_offer", "move.{}_open", "join.{}_load", "join.{}_ready", "leave.{}_send",
    "move.{}_close",
)  # fmt: skip
TRAINER_ACTS = (
    "move.{}_decide", "move.{}_take", "admit.{}_send", "standing.{}_send", "move.{}_drain",
    "move.{}_give_up",
)  # fmt: skip
ACTIONS = ("kill", "pause:2")
DELAY_S = (0.02, 0.3)  # of messages on a slow link
MBPS = (1.0, 8.0)  # megabits a second that a slow newcomer sends
IN_TWO_WAYS = ("hang", "directory", "daemon", "disk")  # which thread, what of it, whose
TRAINERS_OR_NOT = ("daemon", "disk")  # the trainer's, or a peer's
JITTER = (0.5, 1.5)  # of the time between two faults


@dataclass(frozen=True)
class Fault:
    """A fault, and its time.

    Peers are named by a stage and an index into those of its peers that can be chosen then, modulo
    their number. The other end of a link is the trainer when `other_stage` is None.
    """

    at_s: float  # since the first commit
    kind: str
    stage: int | None = None  # None: not of a stage
    which: int = 0
    seconds: float = 0.0
    other_stage: int | None = None
    other: int = 0
    delay_s: float = 0.0
    mbps: float = 0.0
    failpoint: str = ""  # that a move fails at

    def __str__(self) -> str:
        text = f"{self.at_s:8.2f} s  {self.kind:<13}"
        if self.kind == "directory":
            return text + DIRECTORY[self.other].format(self.seconds)
        if self.kind in TRAINERS_OR_NOT and self.stage is None:
            text += " the trainer's"
        if self.stage is not None:
            text += f" stage {self.stage} peer {self.which}"
        if self.kind in ("cut", "slow"):
            end = f"stage {self.other_stage} peer {self.other}"
            text += f" from {'the trainer' if self.other_stage is None else end}"
        if self.kind == "move":
            fails = f", fails at {self.failpoint}" if self.failpoint else ""
            text += f" to stage {self.other_stage}{fails}, stays"
        if self.kind == "slow":
            text += f", by {self.delay_s:.2f} s"
        if self.kind == "slow-newcomer":
            text += f", which sends {self.mbps:.2f} Mb/s"
        return text + _LASTING[self.kind].format(self.seconds)


DIRECTORY = (  # by the fault's `other`
    " all nodes stand still for {:.2f} s",
    " its first node killed, back {:.2f} s later",
)
_LASTING = {
    "kill": ", replaced {:.2f} s later",
    "term": ", replaced {:.2f} s later",
    "stop": " for {:.2f} s",
    "cut": " for {:.2f} s",
    "slow": " for {:.2f} s",
    "radio": " stands still for {:.2f} s",
    "hang": " for {:.2f} s",
    "pause-owner": " for {:.2f} s",
    "move": " for {:.2f} s",
    "join": "",
    "slow-newcomer": "",
    "daemon": " killed",
    "disk": " full for {:.2f} s",
    "trainer": " killed, resumed {:.2f} s later",
    "bootstrap": " killed for good",
}


def draw(
    seed: int, kinds: Iterable[str], replicas: Sequence[int], every_s: float, num: int
) -> list[Fault]:
    """The first `num` faults, about `every_s` apart: a pure function of its arguments.

    Every kind comes once in each cycle, but for the bootstrap, which can be killed only once.
    Raises UsageError for an unknown kind.
    """
    rng = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    at_s = 0.0
    for kind in _cycles(rng, checked(kinds), num):
        at_s += every_s * rng.uniform(*JITTER)
        faults.append(_fault(rng, kind, round(at_s, 2), replicas))
    return faults


def checked(kinds: Iterable[str]) -> list[str]:
    """Return the kinds in the order of KINDS, each once. Raises UsageError for an unknown one, or
    for none."""
    asked = set(kinds)
    for kind in sorted(asked - set(KINDS)):
        raise UsageError(f"no kind of fault is called {kind!r}{did_you_mean(kind, KINDS)}")
    if not asked:
        raise UsageError(f"name at least one kind of fault: {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in asked]


def _cycles(rng: random.Random, kinds: Sequence[str], num: int) -> Iterator[str]:
    again = [kind for kind in kinds if kind != "bootstrap"]
    cycle = list(kinds)
    while cycle and num > 0:
        rng.shuffle(cycle)
        yield from cycle[:num]
        num -= len(cycle)
        cycle = list(again)


def _fault(rng: random.Random, kind: str, at_s: float, replicas: Sequence[int]) -> Fault:
    low, high = LASTS.get(kind, (0.0, 0.0))
    seconds = round(rng.uniform(low, high), 2)
    other = rng.randrange(2) if kind in IN_TWO_WAYS else 0
    is_trainers = kind in TRAINERS_OR_NOT and not other
    if kind in ("trainer", "bootstrap", "directory") or is_trainers:
        return Fault(at_s, kind, seconds=seconds, other=other)
    stages = [s for s, number in enumerate(replicas) if number > 1 or kind not in NEED_COMPANY]
    stage = rng.choice(stages or range(len(replicas)))
    which = rng.randrange(replicas[stage])
    if kind == "move":
        others = [s for s in range(len(replicas)) if s != stage]
        to = rng.choice(others or [stage])
        return Fault(at_s, kind, stage, which, seconds, to, failpoint=_failpoint(rng))
    if kind not in ("cut", "slow"):
        mbps = round(rng.uniform(*MBPS), 2) if kind == "slow-newcomer" else 0.0
        return Fault(at_s, kind, stage, which, seconds, other=other, mbps=mbps)
    other_stage = rng.choice(_linked(stage, replicas))
    other = rng.randrange(replicas[other_stage]) if other_stage is not None else 0
    delay_s = round(rng.uniform(*DELAY_S), 2) if kind == "slow" else 0.0
    return Fault(at_s, kind, stage, which, seconds, other_stage, other, delay_s)


def _failpoint(rng: random.Random) -> str:
    """Return a rule for the process that a move, or whoever orders it, fails at; or none."""
    role, acts = rng.choice((("peer", PEER_ACTS), ("trainer", TRAINER_ACTS)))
    act = rng.choice(acts).format(rng.choice(("before", "after")))
    rule = f"{role}.{act}={rng.choice(ACTIONS)}"
    return rule if rng.random() < MOVE_FAILS else ""


def _linked(stage: int, replicas: Sequence[int]) -> list[int | None]:
    """Return where the links of a stage's peers go; None is the trainer."""
    near = [s for s in (stage - 1, stage + 1) if 0 <= s < len(replicas)]
    return [None, *near, *([stage] if replicas[stage] > 1 else [])]
