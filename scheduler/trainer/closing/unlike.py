"""Replicas of a stage that round differently, and how that is found out.

Rules:
- Hardware and builds may round an update differently. That shows at the first update that a peer
  makes beside others.
- Nobody is at fault then. From now on the owners of parts update in that stage, and all adopt their
  bytes. Who differs gets the state of the others once more.
- Who has agreed with the others before differs by its own fault; so does whoever differs where
  owners update.
- Weights of version 0, which each draws for itself, may differ as well. Who differs then is at
  fault, for a liar could do the same; but where owners update because the run wants it so, the run
  begins without it, and it comes at version 1.
- Where replicas make steps of their own, what they agree on is the same whatever their hardware:
  who differs is at fault.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmrt.ids import SeatId
from swarmrt.scheduler.instructions import Instruction, KeepUnlike, ReportUnlike
from swarmrt.scheduler.trainer.membership.conduct import Kind
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

SOFTWARE = "does it run the same software, on hardware that rounds in the same way?"


def kind_of_difference(run: Run, applied: Iterable[SeatId], stage: int) -> Kind:
    """Return what it is when those of a stage have made different weights in a commit."""
    members = [m for peer in applied if (m := run.members.get(peer)) is not None]
    is_new = any(m.stage == stage and not m.has_agreed for m in members)
    is_open = stage not in run.by_owners and not run.settings.averages
    return "unlike" if is_new and is_open else "fault"


def may_be_unlike(run: Run, member: Member) -> bool:
    """Return whether a newcomer has made by itself the weights that it says it is ready with."""
    if run.settings.averages:
        return False
    if run.version == 0:
        return member.stage in run.by_owners
    admitted_at = member.admit.version if member.admit is not None else run.version
    makes_its_own = member.stage not in run.by_owners and admitted_at < run.version
    return makes_its_own and not member.has_agreed


def found(run: Run, member: Member) -> list[Instruction]:
    """Let owners update in this peer's stage from now on."""
    stage = member.stage
    if run.version == 0 and not run.has_begun and not member.is_spare:  # it comes at version 1
        run.needed = tuple(max(1, n - (s == stage)) for s, n in enumerate(run.needed))
    report = ReportUnlike(stage, member.peer)
    if stage in run.by_owners:
        return [report]
    run.by_owners.add(stage)
    for other in run.members.of_stage(stage, Membership.ADMITTED):
        if other is not member:  # it may have made a version by itself
            run.charge(other.peer, "it follows updates that do not count", "cut")
    return [KeepUnlike(tuple(sorted(run.by_owners))), report]
