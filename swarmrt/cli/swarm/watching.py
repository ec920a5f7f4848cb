"""Watching over a swarm on this machine until its run is over."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from swarmrt.cli.process.signals import Stops

if TYPE_CHECKING:
    from swarmrt.lab.swarm.launch import LaunchedSwarm
    from swarmrt.lab.swarm.part import Part

POLL_S = 0.02


def watch(swarm: LaunchedSwarm) -> int:
    """Wait until the run is over; return the exit code of it all.

    The first two stops are passed on to the trainer: drain, leave at once. With the third we leave.
    """
    with Stops() as stops:
        failed = _watch_trainer(swarm, stops)
    code = swarm.trainer.exit_code or 0
    if failed is not None:
        why = f"{failed.cause()}; all that it said is in {failed.log}"
        print(f"swarmrt: {failed.name} failed: {why}", file=sys.stderr)
        code = max(failed.exit_code or 1, 1)
    if stops.asked:
        return max(code, 0)  # negative: it had not even begun
    if code == 0:
        swarm.wait_for_peers()
    return abs(code)


def _watch_trainer(swarm: LaunchedSwarm, stops: Stops) -> Part | None:
    """Wait until the trainer ends. Return who has failed before and so stopped it, if anybody."""
    running = [part for part in swarm.parts if part is not swarm.trainer]
    failed: Part | None = None
    passed_on = 0
    while True:
        is_over = not swarm.trainer.is_alive  # asked first: what others did before it counts
        for part in [part for part in running if not part.is_alive]:
            running.remove(part)
            if failed is None and _stops_the_run(part, swarm):
                failed = part
                swarm.trainer.signal(signal.SIGTERM)
        if is_over:
            return failed
        if passed_on < stops.asked:
            swarm.trainer.signal(signal.SIGINT)
            passed_on += 1
        time.sleep(POLL_S)


def _stops_the_run(part: Part, swarm: LaunchedSwarm) -> bool:
    """Return whether a part that has ended stops the run, as one does that fails.

    One that is killed does not, which is said: the others may go on without it. Without any peer of
    a stage they cannot, and nobody else will come.
    """
    code = part.exit_code or 0
    if code < 0:
        print(f"swarmrt: {part.name}: {part.cause()}", file=sys.stderr)
    return code > 0 or (code < 0 and not swarm.is_served)
