"""The time that recovery takes: from a fault to the receipt of the first microbatch that was
recovered. And the false alarms: who is fenced though it was there, or soon back.

Peers that are at work are killed, stopped and made to stand still in turn; the times are read from
the trainer's log. The clock is the machine's monotonic one, which all processes share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmrt.ids import MicrobatchId
from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.messages import Accumulated, Beacon, Recover
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.instructions import ReportRecovery, Send
from swarmrt.scheduler.recording import Record
from swarmrt.scheduler.trainer.membership.fencing.draining import HAS_LEFT
from swarmrt.scheduler.trainer.membership.health import Health

KINDS = ("kill", "stop", "stall")
STOP_S = 8.0  # longer than it takes to be found out
STALL_S = 2.0  # what befalls everybody now and then: nobody is to be fenced for it
MEMBER_S = 120.0
KILL_S = 0.5  # the bound on a kill's recovery, over three service times


@dataclass(frozen=True)
class Disturbance:
    at: float  # monotonic seconds
    kind: str  # of KINDS
    peer: str
    stage: int
    over_at: float = math.inf  # when the stage had its replicas again


@dataclass(frozen=True)
class Recovery:
    """A fault that hit a peer with work of the step."""

    kind: str
    stage: int
    noticed_s: float  # until the peer was fenced
    first_s: float  # until the first recovered microbatch's receipt
    all_s: float  # until the last one's
    microbatches: int
    service_s: float  # of one microbatch in that stage, forward and backward
    deadline_s: float  # as it was learned for the peer's beacons

    @property
    def bound_s(self) -> float:
        found_out_s = KILL_S if self.kind == "kill" else KILL_S + 2 * self.deadline_s
        return found_out_s + 3 * self.service_s


def disturb(swarm: LocalSwarm, faults: int) -> list[Disturbance]:
    """Kill and stop peers of a running swarm, one after the other."""
    done: list[Disturbance] = []
    stages = swarm.config.num_stages
    for number in range(faults):
        swarm.wait(swarm.version + 2)
        stage = (number + number // len(KINDS)) % stages  # each kind comes to each stage
        peer = swarm.peers(stage)[0]
        kind = KINDS[number % len(KINDS)]
        began_at = time.monotonic()
        if kind == "kill":
            peer.kill()
            swarm.wait_for_member(swarm.spawn(stage), MEMBER_S)
        else:
            peer.pause()
            time.sleep(STOP_S if kind == "stop" else STALL_S)
            peer.resume()
            swarm.wait(swarm.version + 1)
            swarm.wait_for_member(peer, MEMBER_S)
        done.append(Disturbance(began_at, kind, peer.seat, stage, time.monotonic()))
    return done


def false_alarms(run_dir: Path, disturbances: Sequence[Disturbance]) -> list[str]:
    """Return what was said of each peer that was fenced, and that was neither killed nor stopped
    for long then, nor asked to leave."""
    gone = [d for d in disturbances if d.kind != "stall"]
    return [
        reason
        for record in what_happened(run_dir / "trainer" / "events.jsonl")
        for reason in _fences(record)
        if not reason.endswith(HAS_LEFT)
        and not any(d.peer in reason and d.at <= record.now <= d.over_at for d in gone)
    ]


def recoveries(run_dir: Path, disturbances: Sequence[Disturbance]) -> list[Recovery]:
    """Return what the trainer's log says of each recovery; those that hit nobody's work are left
    out."""
    records = list(what_happened(run_dir / "trainer" / "events.jsonl"))
    faults = (disturbance for disturbance in disturbances if disturbance.kind != "stall")
    found = (_recovery(records, fault) for fault in faults)
    return [recovery for recovery in found if recovery is not None]


def _recovery(records: list[Record], fault: Disturbance) -> Recovery | None:
    health, service_s = Health(), 0.0
    fenced_at: float | None = None
    awaited: set[MicrobatchId] = set()
    first_at = last_at = 0.0
    total = 0
    for record in records:
        now, event = record.now, record.event
        match event:
            case Received(sender, Beacon() as beacon) if fenced_at is None:
                if sender == fault.peer and now < fault.at:
                    health.beacon(now, beacon.queued, beacon.done)
                if beacon.stage == fault.stage:
                    service_s = max(beacon.service_s, 0.0) or service_s
        if now < fault.at:
            continue
        if fenced_at is None and any(fault.peer in reason for reason in _fences(record)):
            fenced_at = now
            awaited = set(_recovered(record, fault.stage))
            total = len(awaited)
            if not awaited:
                return None
        elif fenced_at is not None:
            match event:
                case Received(_, Accumulated(stage=fault.stage, microbatch=mb)) if mb in awaited:
                    awaited.remove(mb)
                    first_at, last_at = first_at or now, now
        if fenced_at is not None and not awaited:
            break
    if fenced_at is None or not first_at:
        return None
    return Recovery(
        fault.kind,
        fault.stage,
        fenced_at - fault.at,
        first_at - fault.at,
        last_at - fault.at,
        total,
        service_s,
        health.deadline_s,
    )


def _fences(record: Record) -> list[str]:
    """Return why peers were fenced, with their names."""
    return [
        instruction.reason
        for instruction in record.instructions
        if isinstance(instruction, ReportRecovery) and instruction.what == "fenced"
    ]


def _recovered(record: Record, stage: int) -> list[MicrobatchId]:
    """Microbatches that new owners of the stage are told to recover."""
    messages = [i.message for i in record.instructions if isinstance(i, Send)]
    return [m.microbatch for m in messages if isinstance(m, Recover) and stage in m.need]
