"""The memory that a peer takes beyond what training its stage takes anyway.

The same stage is trained in a process of its own, without a swarm: torch, parameters, gradients,
optimizer, and the activations of as many microbatches as the peer has at a time. What a peer's
process has beyond that is ours: the directory node, links, frames, and what a reduce needs. Its
libp2p daemon is a process of its own and counted apart.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId
from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.model.partition import resolve
from swarmrt.model.stage import Stage
from swarmrt.runtime.process.vitals import resident_bytes

STEPS = 6  # until memory is what it will be
SAMPLE_S = 0.02
ALONE_S = 300.0


@dataclass(frozen=True)
class Memory:
    """Resident bytes, at the most that was seen."""

    peer_bytes: int
    alone_bytes: int  # the same stage, trained without a swarm
    overhead_bytes: int  # the difference
    daemon_bytes: int  # of the peer's libp2p daemon


def measure(swarm: LocalSwarm, stage: int) -> Memory:
    """Watch the first replica of a stage of a running swarm for some steps.

    Raises RunError where the system does not tell how much memory a process has.
    """
    alone = _alone(swarm.config, stage, swarm.config.batch.microbatches // swarm.replicas[stage])
    peer = swarm.peers(stage)[0]
    daemons = _descendants(peer.pid)
    swarm.wait(swarm.version + STEPS)
    end, most, daemon_most = swarm.version + STEPS, 0, 0
    while swarm.version < end:
        most = max(most, _resident(peer.pid))
        daemon_most = max(daemon_most, sum(map(_resident, daemons)))
        time.sleep(SAMPLE_S)
    return Memory(most, alone, most - alone, daemon_most)


def _alone(config: RunConfig, stage: int, in_flight: int) -> int:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train_alone, args=(config, stage, in_flight, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(ALONE_S):
            raise RunError("the stage alone did not come to an end")
        answer: int | None = ours.recv()
    except EOFError:
        raise RunError("the stage alone could not be trained; see above") from None
    finally:
        process.kill()
        process.join()
    if answer is None:
        raise RunError("this system does not tell how much memory a process has")
    return answer


def _train_alone(config: RunConfig, index: int, in_flight: int, answer: Pipe) -> None:
    torch.set_num_threads(1)
    stage = Stage(resolve(config), index)
    shape = (config.batch.microbatch, config.model.sequence)
    tokens = torch.zeros(shape, dtype=torch.int64)
    inputs = tokens if stage.is_first else torch.zeros(*shape, config.model.width)
    most = 0
    for step in range(STEPS):
        targets = tokens if stage.is_last else None
        batch = [MicrobatchId(step, number) for number in range(in_flight)]
        done = [stage.forward(microbatch, inputs, targets) for microbatch in batch]
        for forwarded in done:
            output = forwarded.output
            stage.backward(forwarded, None if output is None else torch.ones_like(output))
        stage.step(stage.gradients().clone(), 1.0)
        most = max(most, resident_bytes() or 0)
    answer.send(most or None)


def _resident(pid: int) -> int:
    """Return a process's resident memory; 0 for one that is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return [*children, *(pid for child in children for pid in _descendants(child))]
