"""A swarm of 2 stages and 2 replicas on the device, in the quickstart's own float32."""

from __future__ import annotations

from swarmrt.check_gpu.experiment import judge, train_and_kill
from swarmrt.check_gpu.job import Job

# AdamW makes a step of full length of a gradient that is nearly 0, whatever its sign. On a CPU sums
# in another order come to 1e-5 after these steps; one microbatch lost or doubled to 1e-1.
BOUND = 1e-3


def check(job: Job) -> None:
    judge(job, train_and_kill(job, {}), BOUND)
