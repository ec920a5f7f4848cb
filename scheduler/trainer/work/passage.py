"""The seconds that a microbatch takes through all stages, by what replicas say of themselves.

They serve until claims have shown it. What is under way takes as long as the slowest stage needs to
let as many through (Little's law).
"""

from __future__ import annotations

from statistics import median

from swarmrt.scheduler.timing.times import STALL_S
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run

MOST_S = STALL_S  # by what anybody says: else a run would be given up before it is tried again


def passage_s(run: Run) -> float:
    """Return the expected seconds; 0 while no replica has said how long a microbatch takes."""
    apart_s = max(_apart_s(run, stage) for stage in range(run.num_stages))
    return min(MOST_S, len(run.dispatch.under_way()) * apart_s)


def _apart_s(run: Run, stage: int) -> float:
    """Return the seconds between two microbatches that leave a stage. The median of its replicas
    counts, as one of them may say anything."""
    ready = run.members.of_stage(stage, Membership.READY)
    said_s = [member.service_s for member in ready if member.service_s]
    return median(said_s) / len(ready) if said_s else 0.0
