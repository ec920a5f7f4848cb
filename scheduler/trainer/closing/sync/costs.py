"""The members that make rounds, or whole steps, longer than they are worth.

Who does so again is charged, and left out for a while (`worth`, `comparing`).
"""

from __future__ import annotations

from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.closing.comparing import Comparing
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.run import Run


class Costs:
    def __init__(self, run: Run) -> None:
        self._run, self._comparing = run, Comparing(run.settings.told)

    def round_took(self, round_: PrepareRound, now: float) -> None:
        """Charge whoever makes rounds longer than it is worth, when that happens again."""
        run, seconds = self._run, now - round_.began_at - round_.held_s
        slowest = worth.slowest(run, round_)
        for peer in round_.members:
            member = run.members.get(peer)
            if member is not None and member is not slowest:
                member.dear = 0
        if slowest is None:
            return
        is_dear = seconds > worth.most_round_s(run, slowest)
        slowest.dear = slowest.dear + 1 if is_dear else 0
        if slowest.dear >= worth.DEAR:
            run.charge(slowest.peer, f"the reduce has waited {seconds:.0f} s for it", "slow")

    def step_took(self, round_: PrepareRound, seconds: float) -> None:
        """Charge whoever makes steps longer than it is worth, by whatever it is slow in."""
        run = self._run
        counts = not (run.pace.was_held_up or run.void_rounds)
        whole_s = seconds * run.settings.microbatches / run.ledger.microbatches
        longer = self._comparing.step_took(round_.members.keys(), whole_s, counts=counts)
        if longer is None:
            return
        peers, takes_s, before_s = longer
        member = worth.least_worth(run, peers)
        if member is None:
            return
        member.longer_s = takes_s, before_s
        reason = f"steps take {takes_s:.0f} s with it, and took {before_s:.0f} s before it came"
        run.charge(member.peer, reason, "longer")
