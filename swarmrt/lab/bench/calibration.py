"""The nearness of the simulator to runs of real processes: its prediction of their likeness, beside
what they reached. Computing is emulated, in services of 50 ms and more: the CPU shall be no limit.
"""

from __future__ import annotations

from pathlib import Path

from swarmrt.lab.bench.pipeline import SETTINGS, Setting
from swarmrt.lab.bench.pipeline import measure as run
from swarmrt.lab.likeness.compare import Comparison, compare
from swarmrt.lab.swarm.swarm import LocalSwarm

CHURN = "churn"
CALIBRATED = ("equal", "spread", "latency", CHURN)
HIT = (1, 2)  # stages that lose a replica, and get another one, one after the other
STEPS_WITHOUT = 1
STEPS_AFTER = 1
JOINS_S = 120.0
STEPS = 10  # that are measured


def calibrate(name: str, folder: Path, steps: int | None = None) -> Comparison:
    """Let a swarm run as the setting says, and simulate what is like it. Raises RunError."""
    setting = setting_of(name, steps or STEPS)
    run(setting, folder, disturb=churn if name == CHURN else None)
    return compare(folder / setting.name)


def setting_of(name: str, steps: int) -> Setting:
    known = SETTINGS["equal" if name == CHURN else name]
    return Setting(name, known.speeds, known.link_delay_s, known.microbatches, steps)


def churn(swarm: LocalSwarm) -> None:
    """Kill a replica of a stage, start another one some steps later, and so at the next stage."""
    swarm.wait(3)
    for stage in HIT:
        swarm.peers(stage)[0].kill()
        swarm.wait(swarm.version + STEPS_WITHOUT)
        newcomer = swarm.spawn(stage)
        swarm.wait_for_member(newcomer, JOINS_S)
        swarm.wait(swarm.version + STEPS_AFTER)
