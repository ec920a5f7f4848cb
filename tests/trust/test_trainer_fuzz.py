"""Well-formed messages of hostile values, in the midst of a run: nothing raises, all that is sent
can be written down, and the run goes on.

A million of them: `python -m pytest -m slow tests/trust/test_trainer_fuzz.py`.
"""

from __future__ import annotations

import random
import typing
from collections import deque
from typing import Any

import pytest

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import ALL_MESSAGES, Message, Roster
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.recording import Record, to_json
from swarmrt.scheduler.trainer.membership.members import MOST_SEEN
from tests.scheduler.trainer_core import Swarm

STAGES = 3
PAUSE_S = 0.02  # of the swarm's own work, between some of them
INTS = (-(2**63), -1, 0, 1, 2, 3, 2**31, 2**32 + 1, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e-9, 1.0, 200.0, 1e308)


class Fuzz:
    """Hostile values of every kind of message, some of them near the true ones."""

    def __init__(self, seed: int, swarm: Swarm) -> None:
        self.rng, self.swarm = random.Random(seed), swarm
        self.heard: deque[Message] = deque(maxlen=50)  # real ones, to be repeated by others
        self._kinds = [(kind, typing.get_type_hints(kind)) for kind in ALL_MESSAGES]
        self._joined = 0

    def message(self) -> Message:
        if self.heard and self.rng.random() < 0.2:
            return self.rng.choice(self.heard)
        kind, hints = self.rng.choice(self._kinds)
        return kind(**{name: self.value(hints[name]) for name in kind.__struct_fields__})

    def value(self, wanted: Any) -> Any:
        rng = self.rng
        if wanted is int:
            return rng.choice(INTS) if rng.random() < 0.5 else self.near()
        if wanted is float:
            return rng.choice(FLOATS)
        if wanted is bool:
            return rng.random() < 0.5
        if wanted is str:
            known = (f"v{self.swarm.version}", f"g{self.swarm.version}")
            return rng.choice(("", "x", "[/b]\x1b[2J", "long" * 1000, *known))
        if wanted is PeerId:
            return PeerId(rng.choice(("", "nobody", "trainer", *self.swarm.peers)))
        if wanted is MicrobatchId:
            return MicrobatchId(self.value(int), self.value(int), self.value(bool))
        if wanted is Work:
            return Work(self.value(MicrobatchId), self.value(int))
        if typing.get_origin(wanted) is typing.Literal:
            return rng.choice(typing.get_args(wanted))
        if wanted == Roster:
            names = self.value(tuple[PeerId, ...])
            return tuple((peer, self.value(tuple[int, ...])) for peer in names)
        item = typing.get_args(wanted)[0]
        return tuple(self.value(item) for _ in range(rng.choice((0, 1, STAGES, STAGES, 40))))

    def near(self) -> int:
        """What is true of something, or nearly."""
        run = self.swarm.core.run
        number = run.round.number if run.round is not None else 1 << 32
        return self.rng.choice(
            (run.epoch, run.version, run.version + 1, number, number - 1, 5, 100)
        )

    def senders(self) -> list[PeerId]:
        """A stranger, and a member of each stage. For whoever is expelled another one comes."""
        found = [PeerId("stranger"), PeerId(f"stranger{self.rng.randrange(3 * MOST_SEEN)}")]
        for stage in range(STAGES):
            name = PeerId(f"s{stage}liar{self._joined}")
            current = [p for p in self.swarm.peers if p.startswith(f"s{stage}liar")]
            if not current or self.swarm.core.run.conduct.is_expelled(current[-1]):
                for gone in current:
                    del self.swarm.peers[gone]
                self._joined += 1
                self.swarm.join(name, stage)
                current = [name]
            found.append(current[-1])
        return found


def hostile_run(events: int, seed: int, burst: int = 3, **settings: Any) -> Swarm:
    swarm = Swarm((2,) * STAGES, eval_every=2, checkpoint_every=3, latency_s=0.001, **settings)
    swarm.run_to(3)
    fuzz = Fuzz(seed, swarm)
    said = 0
    honest = swarm.say

    def listen(sender: str, message: Message) -> Any:
        fuzz.heard.append(message)
        return honest(sender, message)

    swarm.say = listen  # type: ignore[method-assign]
    while said < events:
        for sender in fuzz.senders():
            for _ in range(fuzz.rng.randint(1, burst)):
                message, said = fuzz.message(), said + 1
                instructions = swarm.feed(Received(sender, message))
                to_json(Record(swarm.now, Received(sender, message), instructions))
        swarm.run(PAUSE_S)
        assert swarm.stopped is None, swarm.stopped
        swarm.told.clear()
    swarm.say = honest  # type: ignore[method-assign]
    return swarm


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_hostile_values_end_nothing(seed: int, staleness: int) -> None:
    swarm = hostile_run(3000, seed, staleness=staleness)
    check_that_it_goes_on(swarm)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_million_hostile_values_end_nothing(seed: int) -> None:
    check_that_it_goes_on(hostile_run(100_000, seed, burst=50, staleness=seed % 2))


def check_that_it_goes_on(swarm: Swarm) -> None:
    version = swarm.version
    swarm.latency_s = 0.2
    swarm.run(400.0)
    assert swarm.stopped is None and swarm.version > version + 100
    assert len(list(swarm.core.run.members)) <= MOST_SEEN + 10
    for stage in range(STAGES):
        honest = {f"s{stage}p0", f"s{stage}p1"}
        assert honest & set(swarm.core.run.members.ready(stage))
