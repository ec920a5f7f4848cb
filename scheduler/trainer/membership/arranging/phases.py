"""The phase of each process's move, for people: from which stages to which, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence

from swarmrt.scheduler.instructions import MovePhase, ReportArranged
from swarmrt.scheduler.trainer.membership.arranging.facts import held_by
from swarmrt.scheduler.trainer.membership.arranging.processes import Process
from swarmrt.scheduler.trainer.membership.members import Member, Membership


def describe(process: Process, seats: Sequence[Member]) -> ReportArranged:
    """Return where a process serves, where it goes, and for which stages it stands by."""
    serves = tuple(seat.stage for seat in seats if seat.state is Membership.READY)
    holds, place, order = held_by(seats), process.place, process.order
    gives_up = order.stage if order is not None and not order.takes else None
    held = {*process.offer.held, *(seat.stage for seat in seats)}
    if order is not None and order.takes:
        held.add(order.stage)
    to = process.aim if process.aim in held - holds else place
    others = sorted(held - {to, place, gives_up, *serves})
    phase = _phase(to, serves, holds, yields=any(seat.yields for seat in seats))
    return ReportArranged(
        process.peer,
        serves,
        to if phase else None,
        phase,
        stands_by=tuple(stage for stage in others if stage in holds),
        loads=tuple(stage for stage in others if stage not in holds),
    )


def _phase(to: int | None, serves: tuple[int, ...], holds: set[int], *, yields: bool) -> MovePhase:
    if to is None or serves == (to,):
        return ""
    if to not in serves:
        return "switching" if to in holds else "loading"
    return "draining" if yields else "serving both"
