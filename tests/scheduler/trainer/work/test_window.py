"""The window: how many microbatches the trainer keeps in flight."""

from __future__ import annotations

import math
from collections import deque

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.trainer.work.window import (
    DEPTH,
    DEPTH_S,
    Window,
    window_of_own_steps,
)

PEERS = [PeerId(f"peer-{number}") for number in range(8)]


def window_of(*peers: PeerId) -> Window:
    window = Window()
    for peer in peers:
        window.add(peer)
    return window


def test_only_a_few_wait_where_gradients_would_be_late_for_own_steps() -> None:
    """What is under way is in flight, beside four a peer, and not the half of it again. Short
    computations have deep queues in steps of which these are a small part."""
    for microbatches, service_s, waiting in ((1000, 0.1, 3), (1000, 0.003, 3), (20_000, 0.003, 31)):
        window = window_of_own_steps(microbatches)
        for peer in PEERS:
            window.add(peer)
        for _ in range(40):
            round_of(window, waiting=max(0, window.size - 100), service_s=service_s)
        assert window.size == 100 + waiting * len(PEERS)


def round_of(window: Window, waiting: int, *, more: bool = True, service_s: float = 0.0) -> int:
    """All peers are heard, `waiting` in all wait, and a window's worth lands; the new size."""
    share, rest = divmod(waiting, len(PEERS))
    for number, peer in enumerate(PEERS):
        for _ in range(20):  # until the smoothed number is this one
            window.heard(peer, 1 + share + (number < rest), service_s)
    for _ in range(window.size):
        window.landed(window.size, more=more)
    return window.size


def test_each_peer_has_something_waiting_from_the_start() -> None:
    assert window_of(*PEERS).size == DEPTH * len(PEERS)


def test_distance_opens_the_window() -> None:
    """400 are under way on long links: nothing waits anywhere until there are more."""
    window = window_of(*PEERS)
    rounds = 0
    while window.size < 400:
        assert round_of(window, waiting=max(0, window.size - 400)) > 0
        rounds += 1
    assert rounds <= 7
    for _ in range(20):
        round_of(window, waiting=max(0, window.size - 400))
    assert 400 + len(PEERS) < window.size < 2 * 400


def test_a_queue_closes_the_window() -> None:
    """Eight compute; the rest of hundreds waits."""
    window = window_of(*PEERS)
    for _ in range(5):
        round_of(window, waiting=0)
    assert window.size > 200
    for _ in range(4):
        round_of(window, waiting=window.size - len(PEERS))
    assert window.size <= 2 * DEPTH * len(PEERS)


def test_the_end_of_a_step_says_nothing_about_the_next() -> None:
    window = window_of(*PEERS)
    for _ in range(3):
        round_of(window, waiting=0)
    size = window.size
    assert round_of(window, waiting=size, more=False) == size


def test_a_round_waits_until_everyone_is_heard() -> None:
    """A beacon of before the last change does not know what came of it."""
    window = window_of(*PEERS)
    round_of(window, waiting=0)
    size = window.size
    for peer in PEERS[1:]:
        window.heard(peer, 1, 0.0)
    for _ in range(3 * size):
        window.landed(size, more=True)
    assert window.size == size
    window.heard(PEERS[0], 1, 0.0)
    window.landed(size, more=True)
    assert window.size > size


def test_a_lost_peer_is_not_waited_for() -> None:
    window = window_of(*PEERS)
    round_of(window, waiting=0)
    size = window.size
    window.remove(PEERS[0])
    for peer in PEERS[1:]:
        window.heard(peer, 1, 0.0)
    for _ in range(size):
        window.landed(size, more=True)
    assert window.size > size


def test_the_window_settles_in_a_closed_loop() -> None:
    """Two stations far apart, each takes one a tick: it is never idle, and no queue grows."""
    window = window_of(*PEERS[:2])
    delay = 50
    ready, queued, idle = deque([0] * window.size), 0, 0
    for tick in range(4000):
        while ready and ready[0] <= tick:
            ready.popleft()
            queued += 1
        if queued:
            queued -= 1
            before = window.size
            window.landed(len(ready) + queued + 1, more=True)
            ready.extend([tick + delay] * (1 + max(0, window.size - before)))
        else:
            idle += tick > 2000
        if tick % 10 == 0:
            window.heard(PEERS[0], queued, 0.0)
            window.heard(PEERS[1], 0, 0.0)
    assert idle == 0
    assert delay < window.size < 3 * delay


def size_after(service_s: float) -> int:
    """One window's worth has landed, of peers that take so long for each."""
    window = window_of(*PEERS)
    for peer in PEERS:
        window.heard(peer, 1, service_s)
    for _ in range(window.size):
        window.landed(window.size, more=True)
    return window.size


def test_more_wait_where_they_are_short() -> None:
    """A peer that takes 5 ms for one would be out of work after any stutter."""
    wanted = math.ceil(DEPTH_S / 0.005)
    assert size_after(0.005) - size_after(0.1) == len(PEERS) * (wanted - DEPTH)
    assert size_after(0.1) == size_after(60.0)


@pytest.mark.parametrize("service_s", [-1.0, 0.0, 5e-324, math.inf, math.nan])
def test_no_service_time_that_a_peer_may_tell_breaks_it(service_s: float) -> None:
    assert size_after(0.1) <= size_after(service_s) <= size_after(0.001)
