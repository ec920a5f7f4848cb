"""Each guard of exactness is needed, and the watch over liveness sees what it is for: without one,
some schedule of faults breaks a promise that it keeps with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.peer.updating.sync.sync import Sync
from swarmrt.scheduler.peer.work.backwards import Backwards
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.task import Status
from swarmrt.scheduler.trainer.closing.sync.round_patience import RoundPatience
from swarmrt.scheduler.trainer.membership.health import Health
from swarmrt.scheduler.trainer.work.ledger import Ledger
from swarmrt.sim.engine.network import Weather
from swarmrt.sim.schedules import hardships
from swarmrt.sim.schedules.faults import Fault, Scenario, draw, play
from swarmrt.sim.schedules.shrinking import first_failing


def without_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated receipt counts again."""

    def receipt(self: Ledger, peer: object, index: int, stage: int) -> bool:
        entry = self._entries.get(index)
        if entry is None or entry.owners[stage] != peer:
            return False
        entry.accumulated.add(stage)
        self._receipts += 1
        return True

    monkeypatch.setattr(Ledger, "receipt", receipt)


def without_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is lost keeps what it owned."""
    monkeypatch.setattr(Ledger, "fence", lambda self, peer: 0)


def without_roster_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sync, "_disagreement", lambda self, message: "")


def without_epoch_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words between peers count whatever their epoch."""
    original = PeerCore._received

    def received(self: PeerCore, sender: PeerId, message: Any, now: float) -> list[Any]:
        if sender != self.seat.settings.trainer and hasattr(message, "epoch"):
            message = msgspec.structs.replace(message, epoch=self.seat.epoch)
        return original(self, sender, message, now)

    monkeypatch.setattr(PeerCore, "_received", received)


def without_dedupe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer accumulates whatever backward comes."""
    original = Computing._start_next

    def start_next(self: Computing) -> Any:
        accumulators = self._accumulators
        record, accumulators.record = accumulators.record, set()
        try:
            return original(self)
        finally:
            accumulators.record = record

    monkeypatch.setattr(Computing, "_start_next", start_next)
    monkeypatch.setattr(
        Backwards,
        "run_or_answer",
        lambda self, task: (
            self._tasks.queue("backward", task) or self._computing.compute()
            if task.has_graph
            and task.forward is Status.DONE
            and task.backward is Status.AWAITED
            and (task.has_gradient or (self._seat.is_last and task.granted))
            else []
        ),
    )


def trainers_in_a_storm(seed: int) -> Scenario:
    """One trainer after the other is killed, while messages come twice and late."""
    scenario = draw(seed)
    storm = Fault(0.2, "storm", 0, 0, 0, 60.0, Weather(doubled=0.3, late=0.3, late_s=2.0))
    deaths = [Fault(1.0 + 2.5 * number, "trainer", 0, 0, 0, 0.5) for number in range(4)]
    replicas = tuple(max(2, number) for number in (*scenario.replicas, 0)[:3])
    return dataclasses.replace(scenario, replicas=replicas, steps=5, faults=(storm, *deaths))


def without_anybody_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is ever given up, and no round is ever void."""
    monkeypatch.setattr(Health, "verdict", lambda self, now, *rest: "fine")
    monkeypatch.setattr(RoundPatience, "is_late", lambda self, *rest: [])


@pytest.mark.parametrize(
    ("mutate", "scenario", "first", "seen"),
    [
        (without_record, draw, 0, ""),
        (without_fence, draw, 7, ""),
        (without_roster_check, draw, 632, ""),
        (without_epoch_check, trainers_in_a_storm, 0, ""),
        (without_dedupe, draw, 42, ""),
        (without_anybody_found_out, hardships.draw, 71, "no commit for"),
    ],
)
def test_each_guard_is_needed(
    mutate: Callable[[pytest.MonkeyPatch], None],
    scenario: Callable[[int], Scenario],
    first: int,
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it, one of 1,000 schedules breaks a promise; with it, that one does not.

    They are tried from the one on that was caught before: a change of what is drawn, or of when,
    moves it.
    """
    with monkeypatch.context() as mutated:
        mutate(mutated)
        found = first_failing(map(scenario, range(first, first + 1000)))
    assert found is not None
    caught, failure = found
    assert seen in str(failure)
    play(caught)
    print(f"{mutate.__name__}: caught by seed {caught.seed}")
