"""Experiments with failures: whole swarms of real processes, driven from Python.

from swarmrt import lab

with lab.LocalSwarm("run.toml", replicas=[2, 3, 2]) as swarm:
    swarm.wait(step=5)
    swarm.peers(stage=1)[0].kill()
    swarm.spawn(stage=1)
    swarm.finish()
report = swarm.audit()
"""

from swarmrt.lab.chaos.chaos import Chaos
from swarmrt.lab.chaos.schedule import KINDS, Fault, draw
from swarmrt.lab.swarm.parts import Bootstrap, Peer, Trainer
from swarmrt.lab.swarm.swarm import LocalSwarm

__all__ = ["KINDS", "Bootstrap", "Chaos", "Fault", "LocalSwarm", "Peer", "Trainer", "draw"]
