"""The versions that are saved, and the stages that keep a copy of one: nobody else copies."""

from __future__ import annotations

from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run


def copied_stages(run: Run, admitting: Admitting, now: float) -> frozenset[int]:
    """Return the stages whose version after this step others are to get."""
    if is_to_be_saved(run):
        return frozenset(range(run.num_stages))
    if not run.saving.leaves_room:
        return frozenset()
    newcomers = run.members.in_state(Membership.SEEN)
    version = run.version + 1
    return frozenset(m.stage for m in newcomers if admitting.may_join(m, version, now))


def is_to_be_saved(run: Run) -> bool:
    """Return whether the version after this step is to be saved, now or as soon as it can be.

    What is still being saved holds nobody up: then the next one that is due is saved instead.
    """
    every, version = run.settings.checkpoint_every, run.version + 1
    is_due = every > 0 and version % every == 0 and run.saving.under_way is None
    return is_due or version == run.last_version
