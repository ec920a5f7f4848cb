"""What replicas say of their speed, and who is told of it."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Standing
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.instructions import Send
from swarmrt.sim.swarm.world import World


def test_those_before_a_replica_are_told_how_fast_it_is_as_soon_as_it_says_so() -> None:
    world = World([2, 2], seed=1, steps=2)
    world.run()
    told: dict[PeerId, list[PeerId]] = {}
    for record in world.trainer.process.history:
        match record.event:
            case Received(sender, Beacon(service_s=service_s)) if service_s and sender not in told:
                told[sender] = [
                    send.to
                    for send in record.instructions
                    if isinstance(send, Send)
                    and isinstance(send.message, Standing)
                    and (send.message.peer, send.message.service_s) == (sender, service_s)
                ]
    assert set(told) == set(world.peers)
    for sender, whom in told.items():
        before = {"s0p0", "s0p1"} if sender.startswith("s1") else set()
        assert before <= set(whom), (sender, whom)
