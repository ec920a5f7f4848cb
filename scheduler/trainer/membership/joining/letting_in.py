"""The letting in of peers: who is admitted, and who is given work.

Rules:
- A peer is admitted when it has the current version, or can get it.
- Newcomers get a replica's state while the others go on, follow the commits that they miss, and
  are ready when they have caught up. Spares go on following until they are needed (`spares`).
"""

from __future__ import annotations

from swarmrt.messages import Apply
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.course.rollback import Rollback
from swarmrt.scheduler.trainer.membership.joining import spares
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting, report
from swarmrt.scheduler.trainer.membership.joining.introducing import neighbours, vouch, welcome
from swarmrt.scheduler.trainer.membership.joining.weights import Weights
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


class LettingIn:
    def __init__(self, run: Run, admitting: Admitting, rollback: Rollback) -> None:
        self._run, self._admitting, self._rollback = run, admitting, rollback
        self._weights = Weights(run)

    def consider(self, member: Member, now: float) -> list[Instruction]:
        """Admit a peer that is not a member, if it has the version or can get it."""
        run, beacon = self._run, member.beacon
        if beacon is None or beacon.epoch != run.epoch or beacon.paused:
            return []
        is_barred = run.conduct.is_barred(member.peer, run.version, now)
        if run.phase in (RunPhase.PREPARING, RunPhase.CLOSING) or is_barred:
            return []
        if self._admitting.is_stuck(member, now):
            return []
        if self._admitting.holds_version(member.stage, beacon) or run.version == 0:
            return [self._admitting.admit(member, (), now)]
        number, norm = run.update
        if beacon.version == run.version - 1 and beacon.prepared == number >= 0:
            return [Send(member.peer, Apply(run.epoch, beacon.version, number, norm, True))]
        if beacon.state == "leaving":
            return []
        if run.saving.offered == run.version:
            return [self._admitting.admit(member, (run.settings.me,), now)]
        return self._rollback.consider(now)

    def ready(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        """Give it work once it has the version of the others."""
        if member.state is not Membership.ADMITTED:
            return []
        member.reached, member.named_weights = max(version, member.reached), (version, digest)
        return self._let_in(member, now)

    def let_in(self, now: float) -> list[Instruction]:
        """Let in whoever has come to the version that the others work on."""
        if self._run.phase not in (RunPhase.TRAINING, RunPhase.PREPARING):
            return []
        admitted = self._run.members.in_state(Membership.ADMITTED)
        if not admitted:
            return []  # it is asked after most events
        spares_last = sorted(admitted, key=lambda member: member.is_spare)
        return [instruction for member in spares_last for instruction in self._let_in(member, now)]

    def followed(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        """Hear that a newcomer has applied what the others have, since its admission."""
        if member.admit is None or not member.admit.version < version <= self._run.version:
            return []
        return self.ready(member, version, digest, now)

    def _let_in(self, member: Member, now: float) -> list[Instruction]:
        run, (version, digest) = self._run, member.named_weights
        if version != run.version or run.round is not None or run.commit is not None:
            return []  # it is let in between commits: from then on it is waited for in them
        if not self._has_agreed(member, digest, now):
            return []
        if member.is_spare and not spares.is_needed(run, member, now):
            return []
        run.members.becomes(member, Membership.READY)
        member.doubted_at, member.ready_at = None, now
        run.unable.discard(member.peer)
        spares.note_served(run, member.stage)
        if not run.has_others(member.peer, member.stage):
            # Another newcomer helps no step that hangs.
            run.pace.came((member.stage, "ready"), now)
        run.dispatch.window.add(member.peer)
        introductions = [vouch(run, other, member) for other in neighbours(run, member)]
        return [report(member), *welcome(run, member), *introductions]

    def _has_agreed(self, member: Member, digest: str, now: float) -> bool:
        """Return whether it has the weights of the others, which is asked once for each version."""
        run = self._run
        agreed = (run.epoch, run.version, digest)
        if member.agreed == agreed:
            return True
        if not self._weights.are_those_of_the_others(member, digest):
            return False
        if member.agreed is None and member.admit is not None and member.admit.donors:
            run.pace.load_time.add(now - member.admitted_at)
        if member.is_spare and member.agreed is not None:
            member.has_agreed = True  # it has made this version, and not loaded it
        member.agreed = agreed
        return True
