"""The arranging of processes that serve where it helps most, by the decisions of `rebalancing`.

Rules:
- It is decided when somebody has come, gone or loaded a state, and once in a while. What is on its
  way is a fact like any other, so several move at once and nothing is ordered twice.
- A process opens a seat while its other one serves, and is let in there between commits, like a
  spare. Then its other seat yields: it drains, and stands by, while others stay at its stage.
- Who has not done in time what it was asked for stays as it is, and is left in peace for a while.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, peer_of, seat_of
from swarmrt.messages import Drain, GiveUp, Idle, Offer, SayEvery, Take
from swarmrt.scheduler.instructions import (
    Instruction,
    ReportArranged,
    ReportMove,
    Send,
    StartDeadline,
)
from swarmrt.scheduler.rebalancing.plan import Download, Drop, Switch
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.scheduler.timing.intervals import is_off, offers_s
from swarmrt.scheduler.timing.times import ARRANGE_S, LOAD_S, OFFERS_S, SWITCH_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.arranging.facts import (
    Seats,
    seats_by_process,
    served_by,
    swarm_of,
)
from swarmrt.scheduler.trainer.membership.arranging.paces import Paces
from swarmrt.scheduler.trainer.membership.arranging.phases import describe
from swarmrt.scheduler.trainer.membership.arranging.processes import Order, Process
from swarmrt.scheduler.trainer.membership.fencing.draining import Draining
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

SILENT = 3  # intervals: a process that says nothing for so long offers nothing any more
CLOSED_S = 2.0  # after the last word of a seat that its process does not hold any more
SAY_AGAIN_S = 2 * OFFERS_S  # an order that the process has not heard
MANY = 256  # members: of more it is looked at less often
REQUESTED = "it was asked for"
LOAD_TRIES = 3  # doublings of the time that others took to load a state

Key = tuple[object, ...]


class Arranging:
    def __init__(self, run: Run, draining: Draining, fencing: Fencing) -> None:
        self._run, self._draining, self._fencing = run, draining, fencing
        self._settings = Settings(standby_share=run.settings.standby_share)
        self._paces = Paces(run.weights)
        self._known: Key = ()  # what was decided on last
        self._decided_at = self._look_at = 0.0

    # ------------------------------------------------------------------ what comes

    def offered(self, sender: PeerId, offer: Offer, now: float) -> list[Instruction]:
        """Take a process's word of what it may serve and which seats it holds."""
        run = self._run
        stages = (*offer.stages, *offer.held)
        if not run.settings.rearrange_s or sender != peer_of(sender):
            return []
        if len(stages) > 2 * run.num_stages or any(stage >= run.num_stages for stage in stages):
            return []  # each has a place in both at most once: what is kept of it is bounded
        if run.conduct.is_expelled(sender):
            return []
        is_first = not len(run.processes)
        process = run.processes.hear(sender, offer, now)
        if process is None:
            return []
        told = self._keep_time(process)
        order = process.order
        if order is not None and order.takes == (order.stage in offer.held):
            process.order = None
        elif order is not None and now - order.said_at > SAY_AGAIN_S:
            order.said_at = now
            return [self._say(process, order), *told]
        return [StartDeadline("arrange", now)] if is_first else told

    def _keep_time(self, process: Process) -> list[Instruction]:
        """Tell a process how often to offer, where that is not about what it does."""
        wanted_s, said_s = offers_s(len(self._run.processes)), process.offer.every_s or OFFERS_S
        if not is_off(said_s, wanted_s) and said_s <= process.told_s:
            return []
        process.told_s = max(process.told_s, wanted_s)
        return [Send(process.peer, SayEvery(self._run.epoch, wanted_s))]

    def requested(self, peer: PeerId, stage: int, seconds: float, now: float) -> list[Instruction]:
        """Let a process serve a stage because somebody wants that, and let it stay: as soon as it
        has the state. Without room for another one it is the stage at which it has a seat beside
        the one that it serves. What its owner does not allow, or while it is at something else or
        in peace, is not done."""
        process, seats = self._run.processes.get(peer), self._run.members.of_process(peer)
        if process is None or process.is_away or process.order is not None or process.rests(now):
            return []
        held, served = process.offer.held, served_by(seats)
        has_room = len(held) < process.offer.rooms
        if stage not in held and not has_room:
            stage = next((other for other in held if other not in served), stage)
        may = stage in process.offer.stages and not process.offer.pinned
        if not may or stage in served or not (stage in held or has_room):
            return []
        process.stays_until = now + seconds
        if stage in held:
            return self._switch(Switch(peer, process.place, stage, REQUESTED), {peer: seats}, now)
        download = Download(peer, stage, REQUESTED, serves_when_loaded=True)
        return self._load(download, now)

    def unable(self, sender: PeerId, stage: int, now: float) -> list[Instruction]:
        """Hear that a process cannot have a seat that it was asked to take."""
        process = self._run.processes.get(sender)
        order = process.order if process is not None else None
        if process is None or order is None or not order.takes or order.stage != stage:
            return []
        return self._failed(process, stage, "it cannot have a seat there", now)

    def lost(self, peer: PeerId) -> None:
        """Decide without a process whose link broke, when it is time to. It may come back: links
        that break and come again cost no decision each."""
        process = self._run.processes.get(peer)
        if process is not None:
            process.is_away, process.order = True, None

    # ------------------------------------------------------------------ what is done

    def look(self, now: float) -> list[Instruction]:
        """See what has become of what was ordered, and decide anew if anything has changed."""
        run = self._run
        forgotten = self._forget_silent(now)
        if not len(run.processes):
            return forgotten
        self._look_at = now + self.look_every_s
        again = StartDeadline("arrange", self._look_at)
        if run.phase in (RunPhase.HAILING, RunPhase.CLOSING):
            return [again, *forgotten]
        seats = seats_by_process(run)
        self._note_paces(seats)
        done = [
            instruction
            for process in run.processes
            for instruction in self._follow(process, seats.get(process.peer, []), now)
        ]
        swarm = swarm_of(run, seats, self._paces, now)
        if not self._is_due(swarm, now):
            return [again, *forgotten, *done, *self._describe(seats)]
        plan = rebalance(swarm, self._settings)
        done += [i for drop in plan.drops for i in self._drop(drop, now)]
        done += [i for switch in plan.switches for i in self._switch(switch, seats, now)]
        done += [i for download in plan.downloads for i in self._load(download, now)]
        return [again, *forgotten, *done, *self._describe(seats)]

    @property
    def look_every_s(self) -> float:
        """Return the time between two looks, in seconds."""
        return ARRANGE_S * max(1.0, len(list(self._run.members)) / MANY)

    def facts(self, now: float) -> Swarm:
        """Return what is decided from, as it is now."""
        return swarm_of(self._run, seats_by_process(self._run), self._paces, now)

    def why_idle(self) -> Idle:
        """Return why nothing is decided now; empty if something may be."""
        run = self._run
        if not run.settings.rearrange_s:
            return "off"
        if run.phase is RunPhase.HAILING:
            return "begins"
        if run.phase is RunPhase.CLOSING:
            return "ends"
        return "" if len(run.processes) else "nobody"

    def _describe(self, seats: Seats) -> list[Instruction]:
        """Report of whom something else is known than people were told."""
        told: list[Instruction] = []
        for process in self._run.processes:
            report = describe(process, seats.get(process.peer, []))
            if report != process.told:
                process.told = report
                told.append(report)
        return told

    def _forget_silent(self, now: float) -> list[Instruction]:
        """Forget who offers nothing any more. While this process stood still nobody was heard."""
        forgotten: list[Instruction] = []
        slept = now - self._look_at > SILENT * OFFERS_S
        for process in self._run.processes:
            if slept:
                process.heard_at = now
            elif now - process.heard_at > SILENT * process.every_s:
                self._run.processes.forget(process.peer)
                forgotten.append(ReportArranged(process.peer))
        return forgotten

    def _note_paces(self, seats: Seats) -> None:
        there, named = set[PeerId](), set[PeerId]()
        for peer, its in seats.items():
            for member in its:
                whose = peer if self._run.processes.get(peer) is not None else member.peer
                there.add(whose)
                named.add(member.peer)
                self._paces.note(whose, member)
        self._paces.forget(there, named)

    def _is_due(self, swarm: Swarm, now: float) -> bool:
        """Return whether something else is known than at the last decision, or that is long ago."""
        peers = tuple(
            (p.name, p.serving, p.holds, p.loading, p.serves_when_loaded, p.limits.most_states)
            + (p.limits.stages, self._paces.knows(PeerId(p.name)))
            for p in swarm.peers
        )
        known: Key = (peers, tuple(stage.least_replicas for stage in swarm.stages))
        if known == self._known and now - self._decided_at < self._run.settings.rearrange_s:
            return False
        self._known, self._decided_at = known, now
        return True

    # ------------------------------------------------------------------ what was ordered

    def _follow(self, process: Process, seats: list[Member], now: float) -> list[Instruction]:
        """See what a process has made of its orders, and let its seats do what they are to."""
        served = served_by(seats)
        told = self._forget_closed(process, seats, now)
        if not process.offer.stages:
            return told  # it leaves
        told += self._is_late(process, seats, served, now)
        conduct, version = self._run.conduct, self._run.version
        process.is_barred = any(conduct.is_barred(seat.peer, version, now) for seat in seats)
        if process.place is None or not (process.place in served or self._comes(process, seats)):
            wanted = [member.stage for member in seats if member.is_wanted]
            stay = [stage for stage in wanted if stage in served] or sorted(served)
            process.put(stay[0] if stay else None, now)
        for member in seats:
            member.is_arranged, member.is_wanted = True, member.stage == process.place
        return told + self._yield(process, seats, served)

    def _comes(self, process: Process, seats: list[Member]) -> bool:
        """Return whether the seat where it is to serve is there, or about to be."""
        place, order = process.place, process.order
        if order is not None and order.stage == place:
            return order.takes
        return place in process.offer.held or any(member.stage == place for member in seats)

    def _forget_closed(
        self, process: Process, seats: list[Member], now: float
    ) -> list[Instruction]:
        """Do without seats that the process does not hold any more, and that are silent."""
        told: list[Instruction] = []
        for member in list(seats):
            heard_at = member.health.heard_at
            is_silent = heard_at is None or now - heard_at > CLOSED_S + member.health.lag_s
            if member.stage not in process.offer.held and is_silent and not process.is_away:
                seats.remove(member)
                told += self._fencing.lost(member.peer, "its process has closed the seat", now)
        return told

    def _is_late(
        self, process: Process, seats: list[Member], served: dict[int, Member], now: float
    ) -> list[Instruction]:
        """Ask no more for what it has not done in time: it stays as it is."""
        order, place = process.order, process.place
        if order is not None and now > order.due_at:
            return self._failed(process, order.stage, "it has not followed its order in time", now)
        states = {member.stage: member for member in seats}
        for stage in list(process.loads_since):
            member = states.get(stage)
            if member is not None and member.agreed is not None:
                del process.loads_since[stage]
                process.failures = 0
        # It gets its state at a commit, for which it may have to wait longer than it then loads.
        patience_s = max(LOAD_S, self._run.pace.load_time.patience_s(LOAD_S, LOAD_TRIES))
        late = [s for s, since in process.loads_since.items() if now - since > patience_s]
        for stage in late:
            if not self._run.has_others(seat_of(process.peer, stage), stage):
                if process.rests(now):
                    continue
                # It may go on, as it is all that the stage will have. But nobody counts on it.
                process.fails(now)
                process.place = None if process.place == stage else process.place
                why = "it has not loaded the state in time; others may be asked to"
                return [ReportMove(process.peer, stage, "stays", why)]
            told = self._failed(process, stage, "it has not loaded the state in time", now)
            order = process.ask(stage, "the state was not loaded in time", now, takes=False)
            return [*told, self._say(process, order)]
        is_stuck = place is not None and place not in served and served
        if is_stuck and place not in process.loads_since and now > process.placed_at + SWITCH_S:
            assert place is not None
            return self._failed(process, place, "it could not be let in there in time", now)
        return []

    def _failed(self, process: Process, stage: int, why: str, now: float) -> list[Instruction]:
        """Leave a process as it is, and in peace."""
        process.fails(now)
        process.loads_since.pop(stage, None)
        if process.place == stage:
            process.place = None
        return [ReportMove(process.peer, stage, "stays", why)]

    def _yield(
        self, process: Process, seats: list[Member], served: dict[int, Member]
    ) -> list[Instruction]:
        """Have its other seats drain once the one that is wanted serves, and stand by."""
        told: list[Instruction] = []
        place = process.place
        takes_part = place in served and not served[place].suspect
        for member in seats:
            if member.yields and (member.stage == place or not takes_part):
                told += self._draining.take_back(member)
            elif member.yields:
                told.append(Send(member.peer, Drain(self._run.epoch)))  # it may have missed it
            elif takes_part and member.stage != place and member.state is Membership.READY:
                told += self._draining.ask_to_yield(member)
        return told

    # ------------------------------------------------------------------ what is decided

    def _switch(self, switch: Switch, seats: Seats, now: float) -> list[Instruction]:
        process = self._run.processes.get(PeerId(switch.peer))
        if process is None:
            return []
        process.put(switch.to_stage, now)
        for member in seats.get(process.peer, []):
            member.is_wanted = member.stage == switch.to_stage
        return [ReportMove(process.peer, switch.to_stage, "serves", switch.why)]

    def _load(self, download: Download, now: float) -> list[Instruction]:
        process = self._run.processes.get(PeerId(download.peer))
        if process is None or process.order is not None or process.rests(now):
            return []
        if download.serves_when_loaded:
            process.put(download.stage, now)
        process.aim = None if download.is_standby else download.stage
        order = process.ask(download.stage, download.why, now, takes=True)
        report = ReportMove(process.peer, download.stage, "loads", download.why)
        return [report, self._say(process, order)]

    def _drop(self, drop: Drop, now: float) -> list[Instruction]:
        process = self._run.processes.get(PeerId(drop.peer))
        if process is None or process.order is not None:
            return []
        member = self._run.members.get(seat_of(process.peer, drop.stage))
        if member is None or not self._may_be_given_up(member):
            return []
        order = process.ask(drop.stage, drop.why, now, takes=False)
        report = ReportMove(process.peer, drop.stage, "forgets", drop.why)
        return [report, self._say(process, order)]

    def _may_be_given_up(self, member: Member) -> bool:
        """Return whether a seat serves nothing, and is not all that its stage has."""
        return member.state is not Membership.READY and self._run.has_others(
            member.peer, member.stage
        )

    def _say(self, process: Process, order: Order) -> Send:
        kind = Take if order.takes else GiveUp
        return Send(process.peer, kind(self._run.epoch, order.stage, order.reason))
