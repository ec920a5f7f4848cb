"""Traces that faults leave behind. What has left none was made in vain, and proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from swarmrt.ids import SeatId, seat_of
from swarmrt.lab.swarm.part import Part
from swarmrt.lab.swarm.parts import Peer, Trainer
from swarmrt.log_writer import AGAIN
from swarmrt.messages import Part as PartOfReduce
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import MoveRequested
from swarmrt.scheduler.instructions import FreeDevice, ReportLeftOut, ReportMove, ReportPeer, Send
from swarmrt.scheduler.trainer.membership.arranging.arranging import REQUESTED

ROOM_AGAIN = f"events.jsonl: {AGAIN}"


@dataclass(frozen=True)
class Trace:
    """The trace of a fault: looked for when the run is over, if it `counts` then."""

    what: str  # is missing, if it is
    is_there: Callable[[], bool]
    counts: Callable[[], bool]


def said_again(part: Part, text: str) -> Callable[[], bool]:
    """Return what tells later whether a process has printed this from now on."""
    so_far = part.output().count(text)
    return lambda: part.output().count(text) > so_far


def was_in(peer: Peer) -> bool:
    """Return whether a newcomer has given parts of gradients, or was told that its link is too
    slow."""
    return any(
        isinstance(instruction, ReportLeftOut)
        or (isinstance(instruction, Send) and isinstance(instruction.message, PartOfReduce))
        for record in what_happened(peer.folder / "events.jsonl")
        for instruction in record.instructions
    )


def gave_device_back(peer: Peer) -> bool:
    """Return whether a peer has given its device back to its owner, at any of its seats."""
    return any(
        isinstance(instruction, FreeDevice)
        for log in peer.folder.rglob("events.jsonl")
        for record in what_happened(log)
        for instruction in record.instructions
    )


def was_asked_to_move(trainer: Trainer, peer: Peer) -> bool:
    """Return whether a trainer was told to let a process serve another stage."""
    return any(
        isinstance(record.event, MoveRequested) and record.event.peer == peer.peer_id
        for record in what_happened(trainer.folder / "events.jsonl")
    )


class Moves(NamedTuple):
    """The moves that were asked for: how many have begun, and at how many of these the process then
    served the other stage."""

    asked: int
    begun: int
    served: int


def moves_asked_for(trainer: Trainer) -> Moves:
    """Count the moves that a trainer was asked for, by its log."""
    asked = served = 0
    begun: list[SeatId] = []
    for record in what_happened(trainer.folder / "events.jsonl"):
        asked += isinstance(record.event, MoveRequested)
        for told in record.instructions:
            match told:
                case ReportMove(peer, stage, _, reason) if reason == REQUESTED:
                    begun.append(seat_of(peer, stage))
                case ReportPeer(peer=seat, state="ready") if seat in begun:
                    begun.remove(seat)
                    served += 1
    return Moves(asked, len(begun) + served, served)
