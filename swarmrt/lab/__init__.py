"""Experiments with failures: whole swarms of real processes, driven from Python.

from swarmrt import lab

with lab.LocalSwarm("run.toml", replicas=[2, 3, 2]) as swarm:
    swarm.wait(step=5)
    swarm.peers(stage=1)[0].kill()
    swarm.spawn(stage=1)
    swarm.finish()
report = swarm.audit()
"""

from swarmrt.lab.chaos import Chaos
from swarmrt.lab.parts import Bootstrap, Peer, Trainer
from swarmrt.lab.schedule import KINDS, Fault, draw
from swarmrt.lab.swarm import LocalSwarm

__all__ = ["KINDS", "Bootstrap", "Chaos", "Fault", "LocalSwarm", "Peer", "Trainer", "draw"]
