"""Telling a core what moves over its process's links, as `runtime.links.moving` does."""

from __future__ import annotations

from swarmrt.ids import PeerId, peer_of
from swarmrt.scheduler.events import Moved
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Wires
from swarmrt.sim.engine.process import Process

TELL_S = 0.5
Gone = tuple[PeerId, int, int]  # to whom, how much, and what is left


def tell_what_moves(
    process: Process,
    clock: Clock,
    wires: Wires,
    came_before: int = 0,
    gone_before: frozenset[Gone] = frozenset(),
) -> None:
    """Feed an event whenever something has moved, or waits to, from now on."""
    if not process.alive:
        return
    host = peer_of(process.me)
    came_bytes, went_bytes, left_bytes = wires.moved_bytes(host)
    gone = wires.gone(host)
    moving = [link for link in gone if link[2] or (link[1] and link not in gone_before)]
    if moving or came_bytes != came_before:
        process.feed(Moved(came_bytes, went_bytes, left_bytes, tuple(moving)))
    told = (came_bytes, frozenset(gone))
    clock.after(TELL_S, lambda: tell_what_moves(process, clock, wires, *told))
