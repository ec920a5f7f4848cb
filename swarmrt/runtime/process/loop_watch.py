"""A thread that watches the event loop, and says where it stands still.

Whatever holds the loop up, a log on a disk that hangs for example, holds up every deadline that
would find it out. Others see that this process is silent; only it can say why.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("swarmrt.loop")

BEAT_S = 1.0  # between two signs of life
STILL_S = 30.0  # without one, before people are told
OURS = str(Path(__file__).parents[2])


@contextmanager
def watching_loop() -> Iterator[None]:
    """Watch the running loop meanwhile."""
    loop, watched = asyncio.get_running_loop(), threading.get_ident()
    is_over = threading.Event()
    last_beat = time.monotonic()

    def beat() -> None:
        nonlocal last_beat
        last_beat = time.monotonic()
        if not is_over.is_set():
            loop.call_later(BEAT_S, beat)

    def watch() -> None:
        said_of = 0.0  # the beat after which it was said
        while not is_over.wait(BEAT_S):
            silent_s = time.monotonic() - last_beat
            if silent_s > STILL_S and said_of != last_beat:
                said_of = last_beat
                log.error(
                    "this process has stood still for %.0f s, in %s: nobody hears of it until "
                    "that comes to its end",
                    silent_s,
                    _place(watched),
                )

    beat()
    threading.Thread(target=watch, name="loop-watch", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _place(thread: int) -> str:
    """Return where in our own code a thread is."""
    frame = sys._current_frames().get(thread)
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    if frame is None:
        return "foreign code"
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}, line {frame.f_lineno})"
