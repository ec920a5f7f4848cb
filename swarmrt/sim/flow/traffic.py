"""Microbatches among replicas that production wiring chooses: the loop of events.

A microbatch goes forward through all stages, and backward the same way; the weights' gradients may
come later than the gradient that goes on, as in a peer's queue. What was given to somebody who dies
is given anew, as soon as that is noticed: a stage's forward is computed once more, and what the
dead had accumulated of an open step is computed again there, forward and backward. What others have
computed stays.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarmrt.scheduler.timing.times import REWIRE_S
from swarmrt.scheduler.trainer.work.window import Window
from swarmrt.scheduler.wiring.policy import BUILT_IN
from swarmrt.sim.flow.rosters import Rosters
from swarmrt.sim.flow.seats import (
    BACKWARD,
    FORWARD,
    GRADIENT,
    WEIGHTS,
    Device,
    Microbatch,
    Seat,
    Task,
)
from swarmrt.sim.flow.steps import Steps

SHARES = (1 / 3, 2 / 3, 1 / 3, 1 / 3)  # of a service: forward, backward, gradient, weights
BEACON_S = 1.0  # between two looks of the trainer at what waits where
SHORTEST = 0.1  # of the mean, that noise or a length leaves


Opening = tuple[Device, int, float, float]
"""A device, a stage, how long a microbatch takes there, and how long it says that it does."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The things that microbatches take."""

    stages: int
    latency_s: float = 0.05  # of a message
    noise: float = 0.0  # of each computation, as a share of it: uniform, or else normal
    is_noise_uniform: bool = False
    length_spread: float = 0.0  # of microbatches, as a share of their mean
    holds: int = 0  # microbatches that a replica can hold; 0 for as many as there are
    step_microbatches: int = 0  # 0: steps have no end
    staleness: int = 1
    reduce_s: float = 0.0  # from a step's last microbatch until it is committed
    beacon_s: float = BEACON_S
    policy: str = BUILT_IN  # of wiring
    seed: int = 0


class Traffic:
    """A swarm at work."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now = settings, 0.0
        self.rosters = Rosters(settings.stages, settings.seed, settings.policy, settings.holds)
        self.landed = 0.0  # by their length
        self.computed = [0.0] * settings.stages  # also what is lost later
        self.events = 0
        self.steps = Steps(settings.step_microbatches, settings.staleness)
        self.window = Window()
        self._trainer = self.rosters.trainer
        self._last = settings.stages - 1
        self._rng = random.Random(f"{settings.seed}/computations")
        self._gauss = self._rng.gauss
        self._heap: list[tuple[float, int, Any, Any, Any]] = []
        self._order = self._numbers = 0
        self._flying: dict[Microbatch, None] = {}
        self._in_flight = 0
        self._is_stopped = False
        self._joining: list[Opening] = []
        self._does_arrive, self._is_done = self._arrives, self._done
        self._at(0.0, self._beacons, None, None)

    # ------------------------------------------------------------------ who is there

    def joins(self, opening: Opening) -> None:
        """Let a newcomer serve from the next commit on, or at once where nobody else does."""
        if self.steps.microbatches and self.rosters.open[opening[1]]:
            self._joining.append(opening)
        else:
            self.opens([opening])

    def opens(self, seats: Sequence[Opening]) -> None:
        """Let devices serve stages from now on."""
        opened = []
        for device, stage, service_s, says_s in seats:
            seat = self.rosters.seat(device, stage, service_s)
            seat.says_s = says_s
            self.window.add(seat.name)
            opened.append(seat)
        self.rosters.opens(opened)
        self._fill()

    def closes(self, device: Device, stage: int) -> None:
        """Let a device have nothing more of a stage. It ends what it has of it."""
        seat = device.seats.get(stage)
        if seat is None:  # it has not been let in yet
            self._joining = [one for one in self._joining if one[:2] != (device, stage)]
            return
        self.window.remove(seat.name)
        self.rosters.closes(seat)

    def dies(self, device: Device) -> None:
        """Let a device do nothing more. Nobody knows yet."""
        device.is_alive = False
        self._joining = [one for one in self._joining if one[0] is not device]
        for queue in (device.forwards, device.backwards, device.weights):
            queue.clear()

    def misses(self, device: Device) -> None:
        """Let everybody know of a device's end: what it had is given to others."""
        for seat in list(device.seats.values()):
            seat.is_gone = True
            if seat.is_open:
                self.window.remove(seat.name)
                self.rosters.closes(seat)
            self.rosters.is_through(seat)
        for seat in device.seats.values():
            held, seat.held = seat.held, {}
            for microbatch in held:
                self._lacks(microbatch, seat.stage)
            self._redo(seat)

    def stop(self) -> None:
        """Stop: a state is lost, and all that is under way is void."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for microbatch in self._flying:
            microbatch.is_void = True
            for seat in microbatch.route:
                if seat is not None:
                    seat.held.pop(microbatch, None)
        self._flying.clear()
        self._in_flight = 0
        self.steps.go_back()

    def go_on(self) -> None:
        """Go on after a stop."""
        if self._is_stopped:
            self._is_stopped = False
            self._fill()

    # ------------------------------------------------------------------ time

    def run(self, until: float) -> None:
        """Go on until then."""
        heap, pop, before = self._heap, heapq.heappop, self._order
        while heap and heap[0][0] <= until:
            self.now, _, happens, one, other = pop(heap)
            happens(one, other)
        self.now = until
        self.events += self._order - before

    def _at(self, when: float, happens: Any, one: Any, other: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, happens, one, other))

    def _beacons(self, _: None, __: None) -> None:
        """Tell the trainer how many wait where, all at once."""
        heard = self.window.heard
        for stage in self.rosters.open:
            for name, seat in stage.items():
                if seat.device.is_alive:
                    heard(name, seat.waiting, seat.said_s)
        self._at(self.now + self.settings.beacon_s, self._beacons, None, None)
        self._fill()

    def _fill(self) -> None:
        steps, settings = self.steps, self.settings
        while self._in_flight < self.window.size and steps.may_send and not self._is_stopped:
            if not self.rosters.open[0]:
                return
            length = 1.0
            if settings.length_spread:
                length = max(SHORTEST, self._rng.gauss(1.0, settings.length_spread))
            microbatch = self._new(steps.send(), length)
            self._in_flight += 1
            self._push(self._trainer, microbatch, 0)

    def _new(self, step: int, length: float) -> Microbatch:
        self._numbers += 1
        microbatch = Microbatch(self._numbers, step, self.settings.stages, length)
        self._flying[microbatch] = None
        return microbatch

    # ------------------------------------------------------------------ a microbatch's way

    def _push(self, giver: Seat, microbatch: Microbatch, stage: int) -> None:
        wiring, now = giver.wiring, self.now
        chosen = wiring.choose(now, microbatch.number if self.settings.holds else None)
        if chosen is None:
            if not giver.stranded:
                self._at(now + REWIRE_S, self._push_stranded, giver, None)
            giver.stranded.append((microbatch, stage))
            return
        microbatch.givers[stage] = giver
        microbatch.pushed_at[stage] = now
        self._order += 1
        event = (
            now + self.settings.latency_s,
            self._order,
            self._does_arrive,
            self.rosters.by_name[chosen],
            microbatch,
        )
        heapq.heappush(self._heap, event)

    def _push_stranded(self, giver: Seat, _: None) -> None:
        stranded, giver.stranded = giver.stranded, deque()
        if not giver.device.is_alive:
            return
        for microbatch, stage in stranded:
            if not microbatch.is_void and microbatch.route[stage] is None:
                self._push(giver, microbatch, stage)

    def _arrives(self, taker: Seat, microbatch: Microbatch) -> None:
        stage = taker.stage
        if microbatch.is_void or microbatch.route[stage] is not None:
            return
        giver = microbatch.givers[stage]
        assert giver is not None, "it was pushed"
        if taker.is_gone:
            if giver.device.is_alive:
                self._push(giver, microbatch, stage)
            return
        device, held = taker.device, taker.held
        if not device.is_alive:  # nobody knows
            microbatch.route[stage] = taker
            held[microbatch] = None
            return
        estimates, said_s = giver.wiring.estimates, taker.said_s
        holds = self.settings.holds
        if holds and len(held) >= holds:
            estimates.observe(taker.name, said_s)
            giver.wiring.block(taker.name, self.now + max(REWIRE_S, said_s))
            self._push(giver, microbatch, stage)
            return
        estimates.observe(taker.name, said_s, taker.backlog_s)
        microbatch.route[stage] = taker
        held[microbatch] = None
        if holds:
            taker.most_held = max(taker.most_held, len(held))
        self._queue(device.forwards, taker, microbatch)

    def _queue(self, queue: list[Task], seat: Seat, microbatch: Microbatch) -> None:
        self._order += 1
        task = microbatch.step, microbatch.number, self._order, seat, microbatch
        heapq.heappush(queue, task)
        if not seat.device.is_busy:
            self._compute(seat.device)

    def _compute(self, device: Device) -> None:
        """Begin the next computation, if there is any."""
        left = device.weights
        kind: int
        while True:
            queue = device.backwards or device.forwards or left
            if not queue:
                return
            if left and queue is not left:
                is_due = left[0][0] < queue[0][0]
                if is_due or len(left) > left[0][3].stage:  # as many as a seat may leave
                    queue = left
            task = device.running = heapq.heappop(queue)
            _, _, _, seat, microbatch = task
            if not microbatch.is_void:
                break
        kind, stage = FORWARD, seat.stage
        if queue is left:
            kind = WEIGHTS
        elif queue is device.backwards:
            kind = GRADIENT if stage and not microbatch.alone >> stage & 1 else BACKWARD
        seconds = seat.service_s * SHARES[kind] * microbatch.length
        noise = self.settings.noise
        if noise and self.settings.is_noise_uniform:
            seconds *= self._rng.uniform(1 - noise, 1 + noise)
        elif noise:
            drawn = self._gauss(1.0, noise)
            seconds *= drawn if drawn > SHORTEST else SHORTEST
        device.is_busy, device.kind, device.seconds = True, kind, seconds
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, self._is_done, device, None))

    def _done(self, device: Device, _: None) -> None:
        if not device.is_alive:
            return
        assert device.running is not None, "it was busy"
        seat, microbatch = device.running[3:]
        seconds, kind = device.seconds, device.kind
        device.is_busy = False
        device.busy_s += seconds
        share = microbatch.length * SHARES[kind]
        self.computed[seat.stage] += share
        device.work += share * seat.service_s * device.rate
        if kind == FORWARD:
            seat.forward_s = seconds
        elif kind != WEIGHTS:
            seat.backward_s = 2 * seconds if kind == GRADIENT else seconds
        if not microbatch.is_void:
            if kind == FORWARD:
                self._forward_done(seat, microbatch)
            else:
                self._backward_done(seat, microbatch, kind)
        if not device.is_busy:
            self._compute(device)

    def _forward_done(self, seat: Seat, microbatch: Microbatch) -> None:
        stage = seat.stage
        microbatch.ready |= 1 << stage
        backwards = seat.device.backwards
        if microbatch.alone >> stage & 1:
            self._queue(backwards, seat, microbatch)
        elif stage == self._last:
            self._queue(backwards, seat, microbatch)
            if not microbatch.is_claimed:
                microbatch.is_claimed = True
                first = microbatch.route[0]
                if first is not None:
                    came_back = self._trainer.wiring.estimates.came_back
                    came_back(first.name, microbatch.pushed_at[0], self.now)
        elif microbatch.gradient == stage:  # which has waited for what is computed again
            self._queue(backwards, seat, microbatch)
        elif microbatch.route[stage + 1] is None:
            self._push(seat, microbatch, stage + 1)

    def _backward_done(self, seat: Seat, microbatch: Microbatch, kind: int) -> None:
        stage = seat.stage
        if kind == GRADIENT:
            microbatch.gradient = -1
            microbatch.alone |= 1 << stage  # from now on nobody else needs it of this stage
            self._order += 1
            when = self.now + self.settings.latency_s
            event = when, self._order, self._comes_back, microbatch, stage - 1
            heapq.heappush(self._heap, event)
            self._queue(seat.device.weights, seat, microbatch)
            return
        del seat.held[microbatch]
        seat.device.count += 1
        if self.steps.microbatches:
            self._accumulated(seat, microbatch.step)
        if not seat.is_open and not seat.held:
            self.rosters.is_through(seat)
        microbatch.left -= 1
        if not microbatch.left:
            self._lands(microbatch)

    def _lands(self, microbatch: Microbatch) -> None:
        """Take note that all stages have accumulated it."""
        del self._flying[microbatch]
        if microbatch.is_claimed:
            self.landed += microbatch.length
            if self.settings.holds:
                self._trainer.wiring.over(microbatch.number)
            self.window.landed(self._in_flight, more=self.steps.may_send)
            self._in_flight -= 1
        if self.steps.landed(microbatch.step):
            self._reduce()
        self._fill()

    def _comes_back(self, microbatch: Microbatch, stage: int) -> None:
        if microbatch.is_void:
            return
        taker = microbatch.route[stage + 1]
        microbatch.gradient = stage
        giver = microbatch.route[stage]
        if giver is None or not giver.device.is_alive:
            return
        if giver is microbatch.givers[stage + 1] and taker is not None:
            estimates = giver.wiring.estimates
            estimates.came_back(taker.name, microbatch.pushed_at[stage + 1], self.now)
            if self.settings.holds:
                giver.wiring.over(microbatch.number)
        if microbatch.ready >> stage & 1:
            self._queue(giver.device.backwards, giver, microbatch)

    # ------------------------------------------------------------------ what was lost

    def _lacks(self, microbatch: Microbatch, stage: int) -> None:
        """Give anew what a stage has lost of a microbatch, if there is somebody who can: else it
        is done as soon as that one has it again."""
        microbatch.ready &= ~(1 << stage)
        microbatch.route[stage] = None
        if microbatch.alone >> stage & 1:
            self._again(microbatch, stage)
            return
        giver = microbatch.route[stage - 1] if stage else self._trainer
        if giver is not None and giver.device.is_alive:
            if not stage or microbatch.ready >> (stage - 1) & 1:
                self._push(giver, microbatch, stage)

    def _redo(self, lost: Seat) -> None:
        """Compute again what was in an accumulator that is lost."""
        for step, count in sorted(lost.done.items()):
            if step < self.steps.committed or self._is_stopped:
                continue
            self.steps.lost(step, count)
            for _ in range(count):
                microbatch = self._new(step, 1.0)
                microbatch.alone, microbatch.left = 1 << lost.stage, 1
                self._again(microbatch, lost.stage)
        lost.done.clear()

    def _again(self, microbatch: Microbatch, stage: int) -> None:
        """Give it to the replica that has the least of what is not done, as the trainer does."""
        seats = self.rosters.open[stage].values()
        taker = min(seats, key=lambda seat: (len(seat.held), seat.name), default=None)
        if taker is None:
            self._at(self.now + REWIRE_S, self._again, microbatch, stage)
            return
        microbatch.route[stage] = taker
        taker.held[microbatch] = None
        if taker.device.is_alive:
            self._queue(taker.device.forwards, taker, microbatch)

    # ------------------------------------------------------------------ steps

    def _accumulated(self, seat: Seat, step: int) -> None:
        done = seat.done
        if step not in done:
            for old in [old for old in done if old < self.steps.committed]:
                del done[old]
        done[step] += 1

    def _reduce(self) -> None:
        when = self.now + self.settings.reduce_s
        self._at(when, self._reduced, self.steps.round, None)

    def _reduced(self, round_: int, _: None) -> None:
        if round_ != self.steps.round:  # something was lost meanwhile
            return
        joining, self._joining = self._joining, []
        if joining:
            self.opens(joining)
        if self.steps.commit():
            self._reduce()
        self._fill()
