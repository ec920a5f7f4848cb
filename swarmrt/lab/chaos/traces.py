"""Traces that faults leave behind. What has left none was made in vain, and proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarmrt.lab.swarm.part import Part
from swarmrt.lab.swarm.parts import Peer
from swarmrt.log_writer import AGAIN
from swarmrt.messages import Part as PartOfReduce
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.instructions import FreeDevice, ReportLeftOut, Send

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
    """Return whether a peer has given its device back to its owner."""
    return any(
        isinstance(instruction, FreeDevice)
        for record in what_happened(peer.folder / "events.jsonl")
        for instruction in record.instructions
    )
