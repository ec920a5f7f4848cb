"""A stage with one replica on the GPU and one on the CPU: what happens, in words.

Replicas take the same bytes for their mean gradient, but each computes its own update, and unlike
hardware may round otherwise. Then it is found out, and the owners of parts update for both. The
check passes if the run goes on with equal weights.
"""

from __future__ import annotations

from swarmrt.check_gpu.experiment import QUICKSTART, commits
from swarmrt.check_gpu.job import Job
from swarmrt.errors import RunError
from swarmrt.lab import LocalSwarm

SETTINGS: dict[str, object] = {
    "run.steps": 100_000,
    "stages.count": 2,
    "stages.layers": [3, 3],
    "evaluation.every_steps": 0,
    "checkpoint.every_steps": 0,
}
TOGETHER = 5  # steps, before they are said to get on
STAGE = 1


def check(job: Job) -> None:
    run_dir = job.folder / "run"
    with LocalSwarm(
        QUICKSTART, [1, 1], run_dir=run_dir, overrides=SETTINGS, device=job.device
    ) as swarm:
        swarm.wait(3, job.left_s)
        newcomer = swarm.spawn(STAGE, device="cpu")
        stopped = ""
        try:
            swarm.wait_for_member(newcomer, job.left_s / 2)
            swarm.wait(swarm.version + TOGETHER, job.left_s / 2)
        except RunError as error:
            stopped = str(error)
        is_over = not swarm.trainer.is_alive
        for part in (swarm.trainer, *swarm.peers()):
            part.kill()  # nobody needs what is under way
        lines = swarm.trainer.last_lines().splitlines()
    together = [c for c in commits(run_dir) if len(c["digests"][STAGE]) > 1]
    equal = [len(set(c["digests"][STAGE].values())) == 1 for c in together]
    job.book.figure("steps_together", len(together))
    job.book.figure("steps_with_equal_weights", sum(equal))
    if is_over:
        job.book.figure("trainer", lines)
        job.book.expect(False, f"the run stops after {len(together)} steps: {lines[-1]:.200}")
        return
    job.book.expect(not stopped, f"neither agreed nor stopped: {stopped.splitlines()[:1]}")
    job.book.expect(all(equal), "the weights differ, and the run goes on")
    job.book.say(f"the run goes on: weights are equal to the bit in {sum(equal)} steps together")
