"""The wait for a round: how long it takes, and what becomes of one that is late.

Rules:
- A round is not late while its parts move, by what its members say. Then it is void, and repeated
  with those that are left.
- Whoever is missing again (`missing`) is done without; so is the slowest link of a round that takes
  longer than it is worth.
- Where somebody is alone in its stage and late, others are called who could do its work.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Hail
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.timing.estimate import LONGEST_S
from swarmrt.scheduler.timing.times import LOOK_S, ROUND_S
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.closing.missing import Missing, blamed
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.voiding import void_round
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run

ASK_AGAIN = 2 / 3  # of the time after which a round is void


class RoundPatience:
    def __init__(self, run: Run, admitting: Admitting) -> None:
        self._run, self._admitting = run, admitting
        self._moved_bytes = 0  # of the round, when it was last looked at
        self._has_looked = False  # since it was begun: what moved before may have come to a stop
        self._missing = Missing(run)
        self._late = 0  # rounds of the step that were void because they took long

    def begin_step(self, now: float) -> None:
        """Begin with the first round of a step."""
        self._missing.begin(now)
        self._late = 0

    def took(self, round_: PrepareRound, now: float) -> None:
        """Learn from a round that is whole: what its parts took over its links says nothing of the
        next one, which may have others."""
        if not self._run.void_rounds:
            its_s = worth.carrying_s(self._run, round_) + round_.held_s
            seconds = now - round_.began_at - its_s
            self._run.pace.round_time.add(max(0.0, seconds))

    def begin(self, round_: PrepareRound, now: float) -> None:
        """Begin to wait for what the members of a round have just been asked for."""
        run = self._run
        self._moved_bytes, self._has_looked = worth.moved_bytes(run, round_), False
        patience_s = self._patience_s(round_)
        run.agenda.set(("ask", None), now + ASK_AGAIN * patience_s)
        look_s = LOOK_S * 2.0 ** min(self._late, 20)
        run.agenda.set(("round", None), now + max(look_s, patience_s))

    def _patience_s(self, round_: PrepareRound) -> float:
        """Return how long a round is waited for: by what others took, and what its links take."""
        learned_s = self._run.pace.round_time.patience_s(ROUND_S, self._late)
        carrying_s = worth.carrying_s(self._run, round_) * 2.0 ** min(self._late, 20)
        return min(LONGEST_S, learned_s + carrying_s + self._run.own_link.delay_s)

    def ask_again(self) -> list[Instruction]:
        """Tell those again to prepare who have not answered. Whose beacons are rare are hailed as
        well: they answer with one, which tells what has moved."""
        run, round_ = self._run, self._run.round
        if round_ is None:
            return []
        missing = round_.missing()
        again = round_.updates() if round_.norm is not None else round_.prepares()
        members = [m for peer in missing if (m := run.members.get(peer)) is not None]
        hail = Hail(run.epoch, run.settings.fingerprint)
        return [
            *(Send(peer, word) for peer, word in again if peer in missing),
            *(Send(m.peer, hail) for m in members if m.health.is_rarely_heard),
        ]

    def is_late(self, now: float) -> list[Instruction]:
        run, round_ = self._run, self._run.round
        if round_ is None:
            return []
        moved_bytes, moves_on = worth.moved_bytes(run, round_), self._has_looked
        self._has_looked = True
        if moved_bytes != self._moved_bytes:  # what is on its way is not sent again
            self._moved_bytes = moved_bytes
            if moves_on and now - round_.began_at >= worth.longest_round_s(run, round_):
                return self._go_on_without_the_slowest(round_, now)
            run.agenda.set(("round", None), now + LOOK_S)
            return self.ask_again()
        called = self._call_others(round_, now)
        missing = [*self.suspects(), *self._lone_ones_beside_others(round_)]
        late = self._missing.again(missing, round_.missing(), now)
        reason = "the reduce waited for it again and again, in vain"
        self._run.charge_all(late, reason, self._missing.waited_s(now))
        self._late += 1
        void = void_round(self._run, f"the reduce is late; waiting for {round_.missing()}")
        return [*void, *called]

    def _lone_ones_beside_others(self, round_: PrepareRound) -> list[SeatId]:
        """Return those who are alone in a stage and late, where another one is about to come in."""
        run, late = self._run, list[SeatId]()
        for stage in round_.alone():
            admitted = run.members.of_stage(stage, Membership.ADMITTED)
            if any(map(self._admitting.could_serve, admitted)):
                late.append(round_.rosters[stage][0][0])
        return late

    def _call_others(self, round_: PrepareRound, now: float) -> list[Instruction]:
        """Let those in who could do the work of one that is alone and late. Some were done without
        in vain, as it was late as well; some only rest because they are slow."""
        run, instructions = self._run, list[Instruction]()
        for stage in round_.alone():
            lone = round_.rosters[stage][0][0]
            for member in run.members.of_stage(stage, Membership.SEEN):
                was_here = member.peer in self._missing.done_without
                is_barred = bool(run.conduct.faults(member.peer)) and not was_here
                if is_barred or not self._admitting.could_serve(member):
                    continue
                if was_here:
                    run.conduct.acquit(member.peer)
                    run.conduct.fault(lone, run.version, now)
                instructions.append(self._admitting.admit(member, (), now))
        return instructions

    def _go_on_without_the_slowest(self, round_: PrepareRound, now: float) -> list[Instruction]:
        """Charge whom it waits for: its parts move, but steps would take many times as long."""
        run, seconds = self._run, now - round_.began_at
        slowest = worth.slowest(run, round_)
        if slowest is not None:
            run.charge(slowest.peer, f"the reduce has waited {seconds:.0f} s for it", "slow")
            return []
        self._late += 1
        reason = f"the reduce takes {seconds:.0f} s; waiting for {round_.missing()}"
        return void_round(run, reason)

    def suspects(self) -> list[SeatId]:
        """Return whom the round that is under way waits for, and could do without."""
        run = self._run
        if run.round is None:
            return []
        return run.round.suspects(lambda peers: blamed(peers, run.members.waits_for, run.trust))
