"""Virtual time."""

from __future__ import annotations

import pytest

from swarmrt.sim.engine.clock import Clock


def test_what_goes_on_for_ever_at_an_instant_is_found() -> None:
    """Else a schedule takes all memory, and the soak never tells which."""
    clock = Clock()

    def again() -> None:
        clock.after(1e-12, again)

    clock.after(3.0, again)
    with pytest.raises(AssertionError, match=r"time stands still at 3\.000 s"):
        while clock.step():
            pass


def test_much_at_one_instant_is_no_fault() -> None:
    clock, done = Clock(), list[int]()
    for number in range(50_000):
        clock.after(1.0, lambda number=number: done.append(number))  # type: ignore[misc]
    while clock.step():
        pass
    assert done == list(range(50_000))
