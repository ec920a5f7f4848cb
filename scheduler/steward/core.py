"""StewardCore: which seats a process holds, at the trainer's word. Events in, instructions out.

Rules:
- The trainer alone says what is wanted, in its newest epoch; its owner says what is allowed.
- A process holds no more seats at a time than it has room for, one that closes counted.
- What it may and what it holds it says when that changes, and from time to time: as often as the
  trainer says, within bounds that no word of it moves.
- Whoever is asked to leave opens nothing more, and goes with its last seat. When the run is over it
  closes those as well of which the trainer has not heard yet.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import Finish, GiveUp, Message, Offer, SayEvery, Take, Unable
from swarmrt.scheduler.events import (
    DeadlinePassed,
    Event,
    PeerLost,
    Received,
    SeatClosed,
    SeatNotOpened,
    SeatOpened,
    Started,
    StopRequested,
)
from swarmrt.scheduler.instructions import (
    CloseSeat,
    Instruction,
    OpenSeat,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.settings import StewardSettings
from swarmrt.scheduler.timing.estimate import is_duration
from swarmrt.scheduler.timing.intervals import offers_within_bounds, phase
from swarmrt.scheduler.timing.times import OFFERS_S


class StewardCore:
    def __init__(self, settings: StewardSettings) -> None:
        self._settings = settings
        self._held: dict[int, str | None] = {}  # stages, and why their seats close, if they do
        self._epoch = -1  # the newest of the trainer that is known
        self._leaves = ""  # why, once it does
        self._every_s = OFFERS_S  # between offers
        self._is_first = False  # such interval
        self._alone_since: float | None = None  # when the trainer was lost, until it is heard again

    @property
    def held(self) -> tuple[int, ...]:
        """Return the stages at which it has a seat, opens or closes one."""
        return tuple(sorted(self._held))

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about an event."""
        return self._handle(event, now) + self._stop_when_empty()

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Started():
                self._held |= dict.fromkeys(self._settings.begins_with)
                return [self._offer(), self._next_offer(now)]
            case DeadlinePassed("offer"):
                return self._say_again(now)
            case Received(sender, message) if sender == self._settings.trainer:
                self._alone_since = None
                return self._heard(message, now)
            case PeerLost(peer) if peer == self._settings.trainer:
                self._alone_since = now if self._alone_since is None else self._alone_since
            case SeatOpened(stage):
                return self._opened(stage)
            case SeatNotOpened(stage, reason):
                self._held.pop(stage, None)
                return [self._unable(stage, reason), self._offer()]
            case SeatClosed(stage):
                self._held.pop(stage, None)
                return [self._offer()]
            case StopRequested(reason):
                self._leaves = reason
                return [self._offer()]
        return []

    def _heard(self, message: Message, now: float) -> list[Instruction]:
        match message:
            case SayEvery(epoch, every_s) if self._is_of_now(epoch, 0) and is_duration(every_s):
                return self._say_every(offers_within_bounds(every_s), now)
            case Take(epoch, stage) if self._is_of_now(epoch, stage):
                return self._take(stage)
            case GiveUp(epoch, stage, reason) if self._is_of_now(epoch, stage):
                return self._close(stage, reason) or [self._offer()]
            case Finish(reason):
                self._leaves = reason
                return [i for stage in self.held for i in self._close(stage, reason)]
        return []

    def _is_of_now(self, epoch: int, stage: int) -> bool:
        """Return whether an order is of the newest trainer, and of a stage that there is."""
        self._epoch = max(self._epoch, epoch)
        return epoch == self._epoch and 0 <= stage < self._settings.num_stages

    def _take(self, stage: int) -> list[Instruction]:
        if stage in self._held:
            return [self._offer()]
        if why := self._why_not(stage):
            return [self._unable(stage, why), self._offer()]
        self._held[stage] = None
        return [OpenSeat(stage), self._offer()]

    def _why_not(self, stage: int) -> str:
        """Return why it does not open a seat at a stage; empty if it may."""
        settings = self._settings
        if self._leaves:
            return "this process leaves"
        if stage not in settings.stages:
            return "its owner does not allow this stage"
        if len(self._held) >= settings.rooms:
            return f"it has room for {settings.rooms} states, and holds as many"
        return ""

    def _opened(self, stage: int) -> list[Instruction]:
        """Close a seat that was given up while it could not be closed yet."""
        if stage not in self._held:
            return []
        reason = self._held[stage]
        if reason is None:
            return self._close(stage, self._leaves) if self._leaves else []
        return [CloseSeat(stage, reason)]

    def _close(self, stage: int, reason: str) -> list[Instruction]:
        """Ask a seat to leave; but once. Who is asked twice goes at once, and others may need it by
        now."""
        if stage not in self._held or self._held[stage] is not None:
            return []
        self._held[stage] = reason
        return [CloseSeat(stage, reason)]

    def _say_again(self, now: float) -> list[Instruction]:
        """Say what it may and holds; or leave, when it holds nothing and the trainer is gone for
        too long."""
        alone_s = 0.0 if self._alone_since is None else now - self._alone_since
        if alone_s > self._settings.trainer_gone_s and not self._held:
            return [Stop(f"the trainer has been gone for {alone_s:.0f} s", error=False)]
        return [self._offer(), self._next_offer(now)]

    def _say_every(self, every_s: float, now: float) -> list[Instruction]:
        """Keep another interval of offers: a longer one after the next of them, a shorter one at
        once."""
        is_shorter, is_new = every_s < self._every_s, every_s != self._every_s
        self._every_s, self._is_first = every_s, is_new or self._is_first
        return [self._next_offer(now)] if is_shorter else []

    def _next_offer(self, now: float) -> StartDeadline:
        """Return when to offer next. Of many that were told at once each does so at another
        time."""
        share = phase(self._settings.me) if self._is_first else 1.0
        self._is_first = False
        return StartDeadline("offer", now + share * self._every_s)

    def _stop_when_empty(self) -> list[Instruction]:
        if not self._leaves or self._held:
            return []
        return [Stop(self._leaves, error=False)]

    def _offer(self) -> Send:
        settings = self._settings
        stages = () if self._leaves else settings.stages
        offer = Offer(
            stages,
            self.held,
            settings.rooms,
            settings.is_pinned,
            settings.down_bytes_per_s,
            settings.listening_share,
        )
        is_usual = self._every_s == OFFERS_S
        return self._say(offer if is_usual else replace(offer, every_s=self._every_s))

    def _unable(self, stage: int, reason: str) -> Send:
        return self._say(Unable(stage, reason))

    def _say(self, message: Message) -> Send:
        return Send(PeerId(self._settings.trainer), message)

    def validate(self) -> None:
        """Check what always holds between events."""
        assert len(self._held) <= max(self._settings.rooms, len(self._settings.begins_with))
        assert set(self._held) <= set(range(self._settings.num_stages))
