"""The measures of a run: who served when and how fast, what messages took, when it committed.

The trainer's log tells who was there and what was committed. The peers' logs, as far as they are in
the run's folder, tell how long they computed and what messages took; of the others the trainer
knows what they say of themselves. All times are the trainer's clock, from the first microbatch that
its last incarnation has sent.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmrt.config import RunConfig
from swarmrt.config_toml import load_config
from swarmrt.errors import UsageError
from swarmrt.ids import SeatId, peer_of, stage_of
from swarmrt.lab.likeness.computed import Computed
from swarmrt.messages import Accumulated, Backward, Beacon, Forward, Leaving, Message, Ready
from swarmrt.observe.trace.clocks import align
from swarmrt.observe.trace.deliveries import Deliveries, Incarnation
from swarmrt.observe.trace.trace import logs_of
from swarmrt.scheduler.events import ForwardDone, PeerLost, Received
from swarmrt.scheduler.instructions import ReportRollback, ReportStep, Send
from swarmrt.scheduler.recording import Header, Record
from swarmrt.scheduler.settings import PeerSettings

WARM_UP_STEPS = 2  # links are dialed, and estimates learned
LEAST_STEPS = 2  # that are measured


@dataclass
class Stay:
    """A seat's stay: from when it was heard first until it was missed, or paused by its owner."""

    seat: SeatId
    joined_at: float
    ready_at: float = math.inf  # its state was there
    heard_at: float = 0.0  # for the last time
    missed_at: float = math.inf
    has_worked: bool = False


@dataclass(frozen=True)
class Measured:
    """A run, measured."""

    config: RunConfig
    stays: tuple[Stay, ...]  # of those who have worked
    ended_at: dict[SeatId, float]  # by the own log of whoever has one here: its last record
    service_s: dict[SeatId, float]
    noise: float
    way_s: float  # from when a frame is sent until it is there
    message_bytes: float
    state_bytes: tuple[float, ...]  # by stage; 0 where no log tells
    gradient_bytes: tuple[float, ...]
    reduce_s: float  # from a step's last microbatch until it is committed
    computed_s: float  # by all devices together, after the warm-up
    commits: tuple[tuple[int, float], ...]  # version, when

    @property
    def begins_at(self) -> float:
        """Return when the warm-up is over."""
        return self.commits[WARM_UP_STEPS - 1][1]

    @property
    def ends_at(self) -> float:
        return self.commits[-1][1]

    @property
    def steps(self) -> int:
        return self.commits[-1][0] - self.commits[WARM_UP_STEPS - 1][0]

    @property
    def throughput(self) -> float:
        """Return microbatches a second, from commit to commit."""
        microbatches = self.steps * self.config.batch.microbatches
        return microbatches / (self.ends_at - self.begins_at)


def measure(run_dir: Path) -> Measured:
    """Read what a run has measured. Raises UsageError for a folder that holds no run, or one that
    is too short or cut."""
    logs = logs_of(run_dir)
    config = load_config(run_dir / "config.toml", environment={})
    try:
        deliveries = Deliveries(logs)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return _Reading(run_dir, config, deliveries).read()


class _Reading:
    """The second reading of the logs."""

    def __init__(self, run_dir: Path, config: RunConfig, deliveries: Deliveries) -> None:
        self._run_dir, self._config, self._deliveries = run_dir, config, deliveries
        processes = deliveries.incarnations
        self._offsets = align(deliveries.shortest(), len(processes))
        trainers = [n for n, process in enumerate(processes) if process.stage is None]
        self._trainer = trainers[-1] if trainers else -1
        self._began_at = math.inf
        self._stays: dict[SeatId, list[Stay]] = defaultdict(list)
        self._said_s: dict[SeatId, list[float]] = defaultdict(list)
        self._landed_at: dict[int, float] = {}  # a step's last receipt
        self._commits: list[tuple[int, float]] = []
        self._reduces_s: list[float] = []
        self._computed: dict[SeatId, Computed] = defaultdict(Computed)
        self._ended_at: dict[SeatId, float] = {}
        self._ways_s: list[float] = []
        self._frames_bytes: list[int] = []
        self._settings: dict[int, PeerSettings] = {}

    def read(self) -> Measured:
        for number, record in self._deliveries.records():
            process = self._deliveries.incarnations[number]
            if isinstance(record, Header):
                if isinstance(record.settings, PeerSettings):
                    self._settings[record.settings.stage] = record.settings
                continue
            offset = self._offsets[number]
            if offset is None:
                continue  # nobody has heard of it
            now = record.now - offset.seconds
            self._send(process, record, now)
            if number == self._trainer:
                self._trained(record, now)
            elif process.stage is not None:
                self._served(SeatId(process.me), record, now)
        return self._measured()

    # ------------------------------------------------------------------ messages

    def _send(self, process: Incarnation, record: Record, now: float) -> None:
        for instruction in record.instructions:
            if not isinstance(instruction, Send):
                continue
            delivery = self._deliveries.talks[process.me, instruction.to].next_sent()
            if not isinstance(instruction.message, Forward | Backward) or delivery is None:
                continue
            offset = self._offsets[delivery.by]
            if offset is not None and self._is_warm:
                self._ways_s.append(max(0.0, delivery.at - offset.seconds - now))

    @property
    def _is_warm(self) -> bool:
        """Return whether the warm-up is over. The trainer's log is the first to be read."""
        return len(self._commits) >= WARM_UP_STEPS

    # ------------------------------------------------------------------ the trainer

    def _trained(self, record: Record, now: float) -> None:
        if isinstance(record.event, Received):
            self._heard(record.event.sender, record.event.message, now)
        elif isinstance(record.event, PeerLost):
            for seat, stays in self._stays.items():
                if peer_of(seat) == peer_of(record.event.peer):
                    stays[-1].missed_at = min(stays[-1].missed_at, now)
        for instruction in record.instructions:
            match instruction:
                case Send(message=Forward()):
                    self._began_at = min(self._began_at, now)
                case ReportStep(version=version):
                    self._commits.append((version, now))
                    if version - 1 in self._landed_at:
                        self._reduces_s.append(now - self._landed_at.pop(version - 1))
                case ReportRollback(version=version, reason=reason):
                    raise UsageError(
                        f"{self._run_dir}: the run went back to version {version} ({reason}); "
                        "what came of that is not simulated"
                    )

    def _heard(self, sender: SeatId, message: Message, now: float) -> None:
        if stage_of(sender) < 0:
            return
        match message:
            case Leaving(idle=True) | Beacon(paused=True):
                self._stay(sender, now).missed_at = now
                return
            case Beacon() | Ready() | Accumulated():
                stay = self._stay(sender, now)
                stay.heard_at = now
            case _:
                return
        match message:
            case Ready():
                stay.ready_at = min(stay.ready_at, now)
            case Beacon(service_s=service_s) if service_s > 0 and self._is_warm:
                self._said_s[sender].append(service_s)
            case Accumulated(microbatch=microbatch):
                stay.has_worked = True
                self._landed_at[microbatch.commits_in] = now

    def _stay(self, seat: SeatId, now: float) -> Stay:
        stays = self._stays[seat]
        if not stays or stays[-1].missed_at < now:
            stays.append(Stay(seat, now))
        return stays[-1]

    # ------------------------------------------------------------------ the peers

    def _served(self, seat: SeatId, record: Record, now: float) -> None:
        self._ended_at[seat] = now
        if self._is_warm and self._commits[WARM_UP_STEPS - 1][1] <= now <= self._commits[-1][1]:
            self._computed[seat].add(record, now)
            if isinstance(record.event, ForwardDone):
                self._frames_bytes.append(record.event.frame_bytes)

    # ------------------------------------------------------------------ all of it

    def _measured(self) -> Measured:
        least = WARM_UP_STEPS + LEAST_STEPS
        if len(self._commits) < least:
            raise UsageError(
                f"{self._run_dir}: {len(self._commits)} steps were committed; a likeness needs "
                f"{least} at the least, of which the first {WARM_UP_STEPS} are the warm-up"
            )
        zero = self._began_at
        stays = [stay for one in self._stays.values() for stay in one if stay.has_worked]
        for stay in stays:
            if stay.ready_at == math.inf:  # its link was lost for a moment, and its state was not
                stay.ready_at = stay.joined_at
            stay.joined_at -= zero
            stay.ready_at -= zero
            stay.heard_at -= zero
            stay.missed_at -= zero
        noises = [computed.noise for computed in self._computed.values()]
        stages = range(self._config.num_stages)
        told = self._settings
        return Measured(
            config=self._config,
            stays=tuple(stays),
            ended_at={seat: at - zero for seat, at in self._ended_at.items()},
            service_s=self._services_s(stays),
            noise=statistics.fmean(noises) if noises else 0.0,
            way_s=_median(self._ways_s),
            message_bytes=_median(self._frames_bytes),
            state_bytes=tuple(float(told[s].update_bytes) if s in told else 0.0 for s in stages),
            gradient_bytes=tuple(float(told[s].wire_bytes) if s in told else 0.0 for s in stages),
            reduce_s=_median(self._reduces_s),
            computed_s=sum(computed.busy_s for computed in self._computed.values()),
            commits=tuple((version, at - zero) for version, at in self._commits),
        )

    def _services_s(self, stays: Sequence[Stay]) -> dict[SeatId, float]:
        """Return what a microbatch takes each seat: by its log, or by its word, or what others of
        its stage take."""
        found: dict[SeatId, float] = {}
        for seat in {stay.seat for stay in stays}:
            service_s = 0.0
            if seat in self._computed:
                overlaps = self._config.overlap > 0
                service_s = self._computed[seat].service_s(with_updates=overlaps)
            if not service_s and self._said_s[seat]:
                service_s = statistics.fmean(self._said_s[seat])
            if service_s:
                found[seat] = service_s
        for seat in {stay.seat for stay in stays} - found.keys():
            alike = [s for other, s in found.items() if stage_of(other) == stage_of(seat)]
            if not alike:
                raise UsageError(
                    f"{self._run_dir}: no log tells how long stage {stage_of(seat)} computes"
                )
            found[seat] = statistics.fmean(alike)
        return found


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
