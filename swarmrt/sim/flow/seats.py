"""The microbatches, and whoever computes them."""

from __future__ import annotations

from collections import Counter, deque

from swarmrt.ids import SeatId
from swarmrt.scheduler.peer.work.pace import BACKWARD_COST
from swarmrt.scheduler.wiring.stochastic import Wiring


class Microbatch:
    """A microbatch on its way. What it was given to at each stage is in `route`, by whom in
    `givers`."""

    __slots__ = (
        "givers",
        "gradient",
        "is_claimed",
        "is_void",
        "length",
        "number",
        "only",
        "pushed_at",
        "ready",
        "route",
        "step",
    )

    def __init__(self, number: int, step: int, stages: int, length: float, only: bool) -> None:
        self.number, self.step, self.length = number, step, length
        self.only = only  # one stage computes it again, for what was lost there
        self.route: list[Seat | None] = [None] * stages
        self.givers: list[Seat | None] = [None] * stages
        self.pushed_at = [0.0] * stages
        self.ready = 0  # bits: stages that have computed its forward
        self.gradient = -1  # stage at which its gradient waits
        self.is_claimed = False  # all forwards were computed
        self.is_void = False


class Device:
    """A peer's device: it computes one thing at a time, backward first."""

    __slots__ = (
        "backwards", "busy_s", "count", "forwards", "is_alive", "is_backward", "is_busy", "name",
        "rate", "running", "seats", "seconds", "work",
    )  # fmt: skip

    def __init__(self, name: str, rate: float) -> None:
        self.name, self.rate = name, rate
        self.seats: dict[int, Seat] = {}
        self.is_alive, self.is_busy = True, False
        self.forwards: deque[tuple[Seat, Microbatch]] = deque()
        self.backwards: deque[tuple[Seat, Microbatch]] = deque()
        self.running: tuple[Seat, Microbatch] | None = None
        self.is_backward, self.seconds = False, 0.0  # of what runs
        self.count, self.work, self.busy_s = 0, 0.0, 0.0  # since they were last taken

    def measured(self) -> tuple[int, float, float]:
        """Return the microbatches, their work and its seconds since the last time."""
        found = self.count, self.work, self.busy_s
        self.count, self.work, self.busy_s = 0, 0.0, 0.0
        return found


class Seat:
    """A peer's place at one stage. One that is closed ends what it has, and gets nothing more."""

    __slots__ = (
        "backward_s", "device", "done", "forward_s", "held", "is_gone", "is_open", "most_held",
        "name", "says_s", "service_s", "stage", "stranded", "wiring",
    )  # fmt: skip

    def __init__(
        self, name: SeatId, device: Device, stage: int, service_s: float, wiring: Wiring
    ) -> None:
        self.name, self.device, self.stage = name, device, stage
        self.service_s, self.wiring = service_s, wiring
        self.says_s = 0.0  # by its own word, before it has computed anything
        self.forward_s = self.backward_s = 0.0  # as it has measured
        self.is_open, self.is_gone = False, False
        self.held: dict[Microbatch, None] = {}  # given to it, and not through its backward
        self.done: Counter[int] = Counter()  # microbatches of each open step in its accumulator
        self.stranded: deque[tuple[Microbatch, int]] = deque()  # nobody could take them
        self.most_held = 0

    @property
    def said_s(self) -> float:
        return self.forward_s + (self.backward_s or BACKWARD_COST * self.forward_s)

    @property
    def backlog_s(self) -> float:
        device = self.device
        return len(device.forwards) * self.forward_s + len(device.backwards) * self.backward_s

    @property
    def waiting(self) -> int:
        """Return how many it could compute at once, with what it computes now."""
        device = self.device
        return len(device.forwards) + len(device.backwards) + device.is_busy
