"""The recovery of what nobody owns: from frames that neighbours retain, or by another attempt."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.messages import Recover
from swarmrt.scheduler.instructions import Batch, Instruction, ReportRecovery, Send
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.ledger import Grant, Ledger


class Recovering:
    def __init__(self, run: Run) -> None:
        self._run = run

    def recover(self, now: float) -> list[Instruction]:
        """Find owners for vacancies: from retained frames, or by another attempt."""
        run = self._run
        instructions: list[Instruction] = []
        recovered = reattempted = 0
        served = {stage for stage, ready in enumerate(run.members.counts) if ready}
        for ledger, index, stage in run.books.vacancies():
            if stage not in served:
                continue  # in a paused run that is what every event finds
            microbatch = MicrobatchId(ledger.step, index)
            if ledger.has_frames(index, stage):
                recovered += 1
                owner = self._new_owner(stage, ledger, index)
                grant = ledger.assign(index, stage, owner)
                instructions.append(self.recover_at(owner, stage, microbatch, grant))
                run.receipts.expect_next(ledger, microbatch, now)
            else:
                reattempted += run.dispatch.again(microbatch)
        if recovered:
            report = ReportRecovery(run.version, "recovered", recovered, "from retained frames")
            instructions.append(report)
        if reattempted:
            report = ReportRecovery(run.version, "reattempted", reattempted, "frames are gone")
            instructions.append(report)
        return instructions

    def _new_owner(self, stage: int, ledger: Ledger, index: int) -> SeatId:
        """Return the ready replica that owns the least of what is not done: of those whose island
        has the frames that it needs, if there are any."""
        members = self._run.members
        ready = members.of_stage(stage, Membership.READY)
        fit = [m for m in ready if not m.leaving and not m.suspect] or ready
        beside = ledger.grant_to_owners(index).path[max(0, stage - 1) : stage + 2]
        islands = {owner.island for peer in beside if (owner := members.get(peer)) is not None}
        load = self._run.books.load(stage)
        near = [m.peer for m in fit if m.island in islands] or [m.peer for m in fit]
        return min(near, key=lambda peer: (load.get(peer, 0), peer))

    def recover_at(self, peer: SeatId, stage: int, microbatch: MicrobatchId, grant: Grant) -> Send:
        run = self._run
        seals = run.seals_of(microbatch, grant)
        message = Recover(run.epoch, microbatch, grant.path, grant.need, seals)
        return Send(peer, message, Batch(microbatch) if stage == 0 else None)
