"""The swarm in float64 with dropout beside one process: what differs is a mistake."""

from __future__ import annotations

from swarmrt.check_gpu.experiment import judge, train_and_kill
from swarmrt.check_gpu.job import Job

BOUND = 1e-10
SETTINGS = {"model.dtype": "float64", "model.dropout": 0.1}


def check(job: Job) -> None:
    judge(job, train_and_kill(job, SETTINGS), BOUND)
