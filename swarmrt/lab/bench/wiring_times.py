"""The time that a sender's wiring takes among very many replicas."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.stochastic import Wiring

T = TypeVar("T")


class Times(NamedTuple):
    """The time of the processor that one call takes, in microseconds."""

    median_us: float
    worst_percent_us: float  # that one call in a hundred takes longer than


def times(replicas: int, choices: int = 20_000) -> dict[str, Times]:
    """Measure each kind of call, for a sender that uses all replicas. Python's garbage collector
    rests meanwhile: it looks at the whole process."""
    seats = [SeatId(f"peer-{number:06d}/1") for number in range(replicas)]
    rng = random.Random(1)
    wiring = Wiring(random.Random(0))
    gc.collect()
    gc.disable()
    found = {"set_peers": _timed(wiring.set_peers, [seats])}
    found["choose, all unproven"] = _timed(lambda what: wiring.choose(0.0, what), range(choices))
    said = [(seat, rng.uniform(0.1, 0.8), rng.uniform(0, 1)) for seat in seats]
    found["observe"] = _timed(lambda word: wiring.estimates.observe(*word), said)
    found["choose"] = _timed(lambda what: wiring.choose(0.0, what), range(choices))
    for number, seat in enumerate(seats[::3]):
        wiring.block(seat, until=5 + number / replicas)
    found["choose, a third blocked"] = _timed(lambda what: wiring.choose(1.0, what), range(choices))
    found["choose, they come back"] = _timed(lambda what: wiring.choose(6.0, what), range(choices))
    newcomers = [SeatId(f"newcomer-{number:06d}/1") for number in range(choices // 10)]
    found["add"] = _timed(wiring.add, newcomers)
    found["remove"] = _timed(wiring.remove, newcomers)
    gc.enable()
    return found


def _timed(call: Callable[[T], object], arguments: Iterable[T]) -> Times:
    taken: list[int] = []
    for argument in arguments:
        began = time.thread_time_ns()
        call(argument)
        taken.append(time.thread_time_ns() - began)
    return Times(_at(taken, 0.5), _at(taken, 0.99))


def _at(taken: Sequence[int], share: float) -> float:
    return sorted(taken)[int(share * len(taken))] / 1000
