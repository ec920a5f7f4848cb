"""The decision of a new incarnation where to go on: from what the peers hold, or the checkpoint.

It hails all that it sees, and decides once it knows what they hold.
"""

from __future__ import annotations

from collections import Counter

from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.timing.times import SETTLE_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.course.resumption import Checkpointed, choose_version
from swarmrt.scheduler.trainer.membership.joining.letting_in import LettingIn
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run


class Settling:
    def __init__(self, run: Run, letting_in: LettingIn) -> None:
        self._run, self._letting_in = run, letting_in
        self._is_settling = False

    def settle_if_known(self, now: float) -> list[Instruction]:
        """Decide once all that are seen have said what they hold. Where spares alone have, replicas
        that hold more may come yet."""
        run = self._run
        answered = [m for m in run.members if m.beacon and m.beacon.epoch == run.epoch]
        if not self._are_enough(answered):
            return []
        replicas = [m for m in answered if not m.is_spare]
        if len(answered) == len(list(run.members)) and self._are_enough(replicas):
            return self.settle(now)
        if self._is_settling:
            return []
        self._is_settling = True
        return [StartDeadline("settle", now + SETTLE_S)]

    def _are_enough(self, members: list[Member]) -> bool:
        """Return whether they are as many of each stage as the run waits for."""
        counts = Counter(member.stage for member in members if not member.is_paused)
        return all(counts[stage] >= needed for stage, needed in enumerate(self._run.needed))

    def settle(self, now: float) -> list[Instruction]:
        """Go on from what they hold, or from the checkpoint."""
        run = self._run
        if run.phase is not RunPhase.HAILING:
            return []
        holdings = [m.beacon for m in run.members if m.beacon and m.beacon.epoch == run.epoch]
        checkpoint = Checkpointed(run.version, run.digests, run.settings.checkpoint_every)
        plan = choose_version(holdings, checkpoint, run.epoch, run.last_version)
        if plan.is_live:
            is_saved = plan.version == run.settings.start_version
            digests = run.digests if is_saved else plan.digests
            run.settle_at(plan.version, (plan.round, plan.norm), digests)
            run.begin_books()
        else:
            run.settle()
        return [i for member in run.members for i in self._letting_in.consider(member, now)]
