"""The plan of checks, in the order of what matters most, and what time each may take."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """A check, which runs in a process of its own."""

    name: str  # of its module in `swarmrt.check_gpu`, and its function there
    what: str
    least_s: float  # not worth a start with less on a GPU
    most_s: float  # on a GPU, then it is ended
    needs_gpu: bool = False


CHECKS = (
    Check("machine", "what is here", 5, 60),
    Check("kernels", "kernels against what they mean, to the bit", 20, 90),
    Check("stage", "a stage against the CPU, and twice to the bit", 20, 90),
    Check("swarm", "a swarm of 2 stages and 2 replicas, one of them killed", 40, 150),
    Check("mixed", "a stage with replicas on different devices", 40, 100, needs_gpu=True),
    Check("codecs", "figures: codecs and digests beside a copy", 10, 40),
    Check("training", "figures: a stage alone, and its memory", 25, 90),
    Check("copies", "figures: do copies overlap with computing", 15, 45),
    Check("pipeline", "figures: the same stages in a swarm", 40, 130),
    Check("exact", "a swarm in float64, one of it killed, against one process", 40, 150, True),
)
ON_CPU_S = 200.0  # the most that a check may take where there is no GPU; it takes some seconds
