"""The fluid world: time goes from one change to the next, and rates are constant in between."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from swarmrt.errors import UsageError
from swarmrt.foreign import printable
from swarmrt.scheduler.rebalancing.assignment import Assignment
from swarmrt.scheduler.rebalancing.limits import download_s
from swarmrt.scheduler.rebalancing.plan import Download, Plan
from swarmrt.scheduler.rebalancing.raising import raise_poorest
from swarmrt.scheduler.rebalancing.rates import LongMean
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.sim.fluid.members import Member
from swarmrt.sim.fluid.oracle import best_rate
from swarmrt.sim.fluid.policies.policy import Policy
from swarmrt.sim.fluid.regret import Moment, causes_of
from swarmrt.sim.fluid.result import Act, Result, Sample, What
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.trace import Change

FREE = Settings(hysteresis=0.0, move_cost=0.0, longest_chain=4)  # moves that cost nothing
MOST_PLANS_AT_ONCE = 1000  # that a policy may make without time going on
PEERS_A_SECOND = 1000  # that are looked at: a swarm of more is not looked at after every change


@dataclass(frozen=True, slots=True)
class _Noticed:
    """The trainer has come to know of a member's end."""

    member: Member


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A member's download of this number has ended."""

    member: Member
    load: int


@dataclass(frozen=True, slots=True)
class _Obeyed:
    """An event: what was decided is done."""


@dataclass(frozen=True, slots=True)
class _Wake:
    """A period of the policy is over."""


@dataclass(frozen=True, slots=True)
class _Nothing:
    """A time from which on other rates count."""


class World:
    """A simulation. `run` plays it, once."""

    def __init__(
        self, scene: Scene, policy: Policy, result: Result, *, with_timeline: bool = False
    ) -> None:
        self._scene = scene
        self._policy = policy
        self.result = result
        self._with_timeline = with_timeline
        self._ties = random.Random(f"{result.seed}/ties")
        self._noise = random.Random(f"{result.seed}/noise")
        self._now = 0.0
        self._heap: list[tuple[float, int, object]] = []
        self._order = 0
        self._members: dict[str, Member] = {}  # with the dead of whom the trainer does not know
        self._lost: set[int] = set()  # stages whose state nobody has
        self._redone_at = 0.0
        self._plan: Plan | None = None  # on its way
        self._is_asked, self._is_woken = False, False
        self._plans_now = 0
        self._moment: Moment | None = None  # of now, or of the last look
        self._has_changed = True  # since then
        self._look_at = self._ask_at = 0.0  # not before
        self._rates = (0.0, 0.0)  # now: of the swarm, and of the free oracle
        self._computes = tuple(stage.compute for stage in scene.stages)

    def run(self) -> Result:
        """Play the scene to its end."""
        for change in self._scene.changes:
            self._at(change.at_s, change)
        if self._policy.period_s is not None:
            self._at(self._policy.period_s, _Wake())
        while self._heap and self._heap[0][0] <= self._scene.end_s:
            self._go_on(self._heap[0][0])
            while self._heap and self._heap[0][0] == self._now:
                self._handle(heapq.heappop(self._heap)[2])
            self._ask()
        self._go_on(self._scene.end_s)
        self.result.duration_s = self._scene.end_s
        return self.result

    def _at(self, when: float, event: object) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, event))

    # ------------------------------------------------------------------ time

    def _go_on(self, until: float) -> None:
        """Count what is done until then. Nothing changes meanwhile."""
        seconds = until - self._now
        if seconds <= 0:
            return
        if self._moment is None or self._has_changed and self._now >= self._look_at:
            self._moment, self._has_changed = self._look(), False
            self._look_at = self._now + self._pause_s
        moment, result = self._moment, self.result
        result.microbatches += moment.rate * seconds
        result.oracle_microbatches += moment.oracle * seconds
        result.free_oracle_microbatches += self._rates[1] * seconds
        for cause, lost in causes_of(moment).items():
            result.regret[cause] += lost * seconds
        stopped = sum(m.is_alive and m.has_stopped for m in self._members.values())
        result.serving_lost_s += stopped * seconds
        self._now = until
        self._plans_now = 0

    @property
    def _pause_s(self) -> float:
        """Return how long a look at everybody counts, even if something changes."""
        peers = len(self._members)
        return peers / PEERS_A_SECOND if peers > PEERS_A_SECOND else 0.0

    def _look(self) -> Moment:
        alive = [member for member in self._members.values() if member.is_alive]
        counted = [member for member in alive if self._is_counted(member)]
        free = best_rate((m.traits.rate for m in alive), self._computes)
        oracle = best_rate((m.traits.rate for m in counted), self._computes)
        present = Assignment(self._scene.stages, [m.traits.rate for m in alive])
        for number, member in enumerate(alive):
            place = present.idle if member.serving is None else member.serving
            present.enter(number, place, member.holds)
        rate = 0.0 if self._is_restarting else present.least()
        if self._with_timeline:
            self.result.samples.append(Sample(self._now, rate, oracle, tuple(present.counts)))
        self._rates = (rate, free)
        if rate < oracle:
            raise_poorest(present, FREE)
        return Moment(
            oracle=oracle,
            rate=rate,
            by_switching=present.least(),
            is_restarting=self._is_restarting,
            is_unnoticed=len(alive) < len(self._members),
            is_deciding=self._plan is not None,
            is_downloading=any(m.loading is not None and m.loads_to_serve for m in alive),
        )

    @property
    def _is_restarting(self) -> bool:
        """Return whether a state is lost, or what was lost is done again."""
        return bool(self._lost) or self._now < self._redone_at

    def _is_counted(self, member: Member) -> bool:
        """Return whether oracle b counts a peer: it has had the time to load a state."""
        return (
            member.joined_at == 0.0
            or member.joined_at + self._scene.wait_s(member.name) <= self._now
        )

    # ------------------------------------------------------------------ events

    def _handle(self, event: object) -> None:
        self._has_changed = True
        match event:
            case Change(joins=True, name=name):
                self._join(name)
            case Change(name=name):
                self._leave(name)
            case _Noticed(member):
                if self._members.get(member.name) is member:
                    self._notice(member)
                self._is_asked = True
            case _Loaded(member, load):
                self._loaded(member, load)
            case _Obeyed():
                assert self._plan is not None, "it is on its way"
                plan, self._plan = self._plan, None
                self._obey(plan)
            case _Wake():
                assert self._policy.period_s is not None, "it wakes up"
                self._is_woken = True
                self._at(self._now + self._policy.period_s, _Wake())
            case _Nothing():
                pass

    def _join(self, name: str) -> None:
        traits = self._scene.traits_of(name)
        tie, mean = self._ties.random(), LongMean(traits.rate)
        member = Member(name, traits, self._now, tie, mean, measured_at=self._now)
        self._members[name] = member  # also in place of one that is dead and not missed yet
        self.result.peers_joined += 1
        self._note("join", name)
        self._at(self._now + self._scene.wait_s(name), _Nothing())
        self._is_asked = True

    def _leave(self, name: str) -> None:
        member = self._members[name]
        member.is_alive = False
        self._note("leave", name, member.serving)
        for stage in sorted(member.holds):
            self._miss(member, stage)  # who does not know of its end believes that it holds them
        self._at(self._now + self._scene.detect_s, _Noticed(member))

    def _notice(self, member: Member) -> None:
        del self._members[member.name]

    def _loaded(self, member: Member, load: int) -> None:
        if not member.is_alive or member.load != load or member.loading is None:
            return
        stage, member.loading = member.loading, None
        member.holds.add(stage)
        self._note("loaded", member.name, stage)
        if stage in self._lost:
            self._lost.discard(stage)
            if not self._lost and self._scene.redo_s:
                self._redone_at = self._now + self._scene.redo_s
                self._at(self._redone_at, _Nothing())
        if member.serves_when_loaded:
            replaced = member.serving
            member.serves_when_loaded = False
            self._serve(member, stage, "its state has come")
            if replaced is not None:
                self._forget(member, replaced)
        self._is_asked = True

    # ------------------------------------------------------------------ decisions

    def _ask(self) -> None:
        """Ask the policy, if something has happened that it may answer, and nothing that it has
        decided is on its way."""
        while self._plan is None and (self._is_asked or self._is_woken):
            if self._now < self._ask_at:
                return  # it is asked then
            if self._pause_s and self._now > 0:
                self._ask_at = self._now + self._pause_s
                self._at(self._ask_at, _Nothing())
            swarm = self._seen()
            if self._is_asked:
                self._is_asked = False
                plan = self._policy.decide(swarm)
            else:
                self._is_woken = False
                plan = self._policy.wake(swarm)
            if not plan:
                continue
            self._plans_now += 1
            if self._plans_now > MOST_PLANS_AT_ONCE:
                raise UsageError(f"policy {self.result.policy}: comes to no end at {self._now} s")
            delay = self._scene.decide_s if self._now > 0 else 0.0
            self._plan = plan
            self._has_changed = True
            self._at(self._now + delay, _Obeyed())
            if not delay:
                return

    def _seen(self) -> Swarm:
        scene = self._scene
        for member in self._members.values():
            self._measure(member)
        peers = sorted(self._members.values(), key=lambda m: m.tie)
        step_s = scene.step_s
        if scene.step_microbatches:
            rate = self._rates[0]
            step_s = scene.step_microbatches / rate if rate else float("inf")
        return Swarm(self._now, scene.stages, tuple(m.seen() for m in peers), step_s)

    def _measure(self, member: Member) -> None:
        """Let the trainer hear of what a member has computed since the last time."""
        scene = self._scene
        if not (scene.noise or scene.length_spread):
            return
        if member.is_alive and member.serving is not None:
            compute = self._computes[member.serving]
            member.measure(self._now, compute, scene.noise, scene.length_spread, self._noise)

    def _obey(self, plan: Plan) -> None:
        """Do what a plan says, as far as whoever it names is still there and able to."""
        for drop in plan.drops:
            if (member := self._alive(drop.peer)) and member.serving != drop.stage:
                self._forget(member, drop.stage)
        for switch in plan.switches:
            member = self._alive(switch.peer)
            if member and switch.to_stage in member.holds:
                self._serve(member, switch.to_stage, switch.why)
        for download in plan.downloads:
            if (member := self._alive(download.peer)) and member.loading is None:
                self._load(member, download)

    def _forget(self, member: Member, stage: int) -> None:
        """Let a member have a state no more."""
        member.holds.discard(stage)
        self._miss(member, stage)

    def _miss(self, member: Member, stage: int) -> None:
        """Take note that a member has a state no more. If nobody else has it, it is lost."""
        if not any(m.is_alive and stage in m.holds for m in self._members.values()):
            self._lost.add(stage)
            self.result.lost_states += 1
            self._note("lost", member.name, stage)

    def _alive(self, name: str) -> Member | None:
        member = self._members.get(name)
        return member if member is not None and member.is_alive else None

    def _serve(self, member: Member, stage: int, why: str) -> None:
        if member.serving is not None and member.serving != stage:
            self.result.switches += 1
            self._note("switch", member.name, stage, why)
        member.serving, member.has_stopped = stage, False
        member.measured_at = self._now

    def _load(self, member: Member, download: Download) -> None:
        if not 0 <= download.stage < len(self._scene.stages):
            raise UsageError(
                f"policy {self.result.policy}: stage {download.stage} of {printable(member.name)} "
                f"does not exist; the first is 0, the last {len(self._scene.stages) - 1}"
            )
        if download.stops_serving and member.serving is not None:
            self._stop_serving(member)
        member.loading = download.stage
        member.load += 1
        member.serves_when_loaded = download.serves_when_loaded
        member.loads_to_serve = not download.is_standby
        is_first = member.load == 1
        self.result.downloads += 1
        self.result.first_downloads += is_first
        self.result.standby_downloads += download.is_standby
        what: What = "standby" if download.is_standby else "download"
        self._note(what, member.name, download.stage, download.why)
        seconds = download_s(member.seen(), self._scene.stages[download.stage])
        if self._now == 0 and is_first and download.serves_when_loaded:
            seconds = 0.0  # the first states are made, not loaded
        self._at(self._now + seconds, _Loaded(member, member.load))

    def _stop_serving(self, member: Member) -> None:
        stopped = member.serving
        assert stopped is not None, "it serves one"
        member.serving, member.has_stopped = None, True
        self.result.switches += 1
        self._forget(member, stopped)

    def _note(self, what: What, name: str, stage: int | None = None, why: str = "") -> None:
        if self._with_timeline:
            self.result.acts.append(Act(self._now, what, name, stage, why))
