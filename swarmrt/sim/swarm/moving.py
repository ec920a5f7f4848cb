"""Telling a core what moves over its process's links, as `runtime.links.moving` does."""

from __future__ import annotations

from swarmrt.ids import peer_of
from swarmrt.scheduler.events import Moved
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Wires
from swarmrt.sim.engine.process import Process

TELL_S = 0.5
NOTHING = Moved(0, 0, 0)


def tell_what_moves(process: Process, clock: Clock, wires: Wires, told: Moved = NOTHING) -> None:
    """Feed an event whenever something has moved, or waits to, from now on."""
    if not process.alive:
        return
    moved = Moved(*wires.moved_bytes(peer_of(process.me)))
    if moved != told or moved.left_bytes:
        process.feed(moved)
    clock.after(TELL_S, lambda: tell_what_moves(process, clock, wires, moved))
