"""The claims of microbatches: which attempt counts, and what its backward may take.

Rules:
- A claim counts from a ready replica of the last stage, for an attempt that was sent, and for a
  route that names nobody who serves another stage than it says.
- One whose loss is not finite is tried again without one of those that it passed, until nobody is
  left to do without.
"""

from __future__ import annotations

import math

from swarmrt.ids import MicrobatchId
from swarmrt.messages import Claim, Granted, Path, Stale
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


class Claims:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._bad_routes: dict[MicrobatchId, list[Path]] = {}  # whose loss is not finite, this step

    def forget(self) -> None:
        self._bad_routes.clear()

    def claim(self, member: Member, claim: Claim, now: float) -> list[Instruction]:
        run, microbatch = self._run, claim.work.microbatch
        valid = (
            claim.epoch == run.epoch
            and member.stage == run.num_stages - 1
            and len(claim.route) == run.num_stages
            and claim.route[-1] == member.peer
            and run.dispatch.was_sent(claim.work)
        )
        ledger = run.books.of(microbatch) if valid else None
        if ledger is None:
            return [Send(member.peer, Stale(claim.work))]
        is_ready = member.state is Membership.READY
        if not is_ready or run.members.is_astray(claim.route):
            # what was sent after it was fenced never came to it, whatever it says
            if run.dispatch.is_newest(claim.work, math.inf if is_ready else member.fenced_at):
                run.dispatch.goes_again(microbatch)
            return [Send(member.peer, Stale(claim.work))]
        if not math.isfinite(claim.loss_sum):
            return [Send(member.peer, Stale(claim.work)), *self._loss_is_not_finite(claim)]
        grant = ledger.claim(claim, run.members.is_ready)
        if grant is None:
            return [Send(member.peer, Stale(claim.work))]
        member.worked_at = now
        if ledger.has_advanced:
            run.pace.progress_at = now
        since = math.inf if run.pace.was_held_up else run.pace.step_began_at
        run.dispatch.claimed(claim.work, claim.route[0], now, since)
        run.agenda.cancel(("flight", microbatch))
        run.receipts.expect_next(ledger, microbatch, now)
        seals = run.seals_of(microbatch, grant)
        return [Send(member.peer, Granted(run.epoch, microbatch, grant.path, grant.need, seals))]

    def _loss_is_not_finite(self, claim: Claim) -> list[Instruction]:
        """Go on without a peer that is on all routes on which it was so."""
        run, microbatch = self._run, claim.work.microbatch
        ready = [run.members.is_ready(peer, stage) for stage, peer in enumerate(claim.route)]
        if not all(ready):
            return []  # somebody has gone meanwhile, or is made up
        reason = f"the loss of microbatch {microbatch} is not finite"
        routes = self._bad_routes.setdefault(microbatch, [])
        for peer in {peer for route in routes for peer in route} - set(claim.route):
            run.conduct.acquit(peer)  # it is so without this one too
        routes.append(claim.route)
        for stage in reversed(range(run.num_stages)):
            shared = {route[stage] for route in routes}
            if len(shared) == 1 and run.has_others(claim.route[stage], stage):
                run.charge(claim.route[stage], reason)
                run.dispatch.goes_again(microbatch)
                return []
        ways = "; ".join(" → ".join(route) for route in routes)
        reason = f"{reason}, whoever computes it: {ways}"
        return run.is_not_finite(microbatch.commits_in, reason, (microbatch,))
