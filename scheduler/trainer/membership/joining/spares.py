"""The spares of stages: they have the state and follow the reduces, and take no work.

Rules:
- A spare is admitted like any newcomer, and only let in when it is needed. Nobody waits for it.
- It is needed when fewer replicas stay in its stage than ever since it came: others are lost, left
  out, or want to leave.
- Before a run trains, spares fill in for the replicas that it waits for; but not before it could
  begin with them, and replicas that are about to come have had a while.
- One whose process serves where it helps most is needed when nobody stays. Else it is decided
  elsewhere (`arranging`).
- One that is late does not take over, nor one that wants to leave itself, while others serve.
"""

from __future__ import annotations

from swarmrt.scheduler.timing.times import FILL_IN_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


def is_needed(run: Run, spare: Member, now: float) -> bool:
    """Return whether a spare that has the version of the others is to take work from now on."""
    staying = _num_staying(run, spare.stage)
    if spare.suspect or (spare.leaving and run.members.ready(spare.stage)):
        return False
    if run.phase is not RunPhase.WAITING:
        return staying < (1 if spare.is_arranged else max(1, spare.most_served))
    is_missing = staying < run.needed[spare.stage]
    return is_missing and now - spare.admitted_at >= FILL_IN_S and _could_begin(run)


def is_there(run: Run, stage: int) -> bool:
    """Return whether a spare of this stage could take over now."""
    return bool(_spares(run, stage))


def note_served(run: Run, stage: int) -> None:
    """Remember how many serve a stage now, as one was let in."""
    served = len(run.members.ready(stage))
    for member in run.members.of_stage(stage):
        member.most_served = max(member.most_served, served)


def note_moved(run: Run, stage: int) -> None:
    """Forget a replica of a stage that is wanted at another one: nobody has to take its place."""
    for member in run.members.of_stage(stage):
        member.most_served = max(0, member.most_served - 1)


def _spares(run: Run, stage: int) -> list[Member]:
    admitted = run.members.of_stage(stage, Membership.ADMITTED)
    spares = (member for member in admitted if member.is_spare and not member.suspect)
    return [spare for spare in spares if spare.named_weights[0] == run.version]


def _num_staying(run: Run, stage: int) -> int:
    return sum(not replica.leaving for replica in run.members.of_stage(stage, Membership.READY))


def _could_begin(run: Run) -> bool:
    """Return whether every stage has the replicas that were asked for, with its spares."""
    return all(
        _num_staying(run, stage) + len(_spares(run, stage)) >= needed
        for stage, needed in enumerate(run.needed)
    )
