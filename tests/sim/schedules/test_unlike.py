"""Replicas that round differently, in virtual time: owners update, and all adopt their bytes."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.engine.process import Process
from swarmrt.sim.schedules.shrinking import failure_of, shrink
from swarmrt.sim.schedules.unlike import draw
from swarmrt.sim.swarm.liveness import Liveness
from swarmrt.sim.swarm.world import World

OTHER = " fma"


def only(*names: str) -> dict[PeerId, str]:
    return {PeerId(name): OTHER for name in names}


def world(replicas: tuple[int, ...], seed: int, unlike: dict[PeerId, str], **how: object) -> World:
    made: World = World(replicas, seed, rounding_of=lambda peer: unlike.get(peer, ""), **how)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("staleness", [0, 1])
def test_unlike_replicas_are_equal_where_owners_update(seed: int, staleness: int) -> None:
    swarm = world((1, 3), seed, only("s1p1"), by_owners=True, staleness=staleness)
    swarm.run()
    assert [report.version for report in swarm.disk.steps] == list(range(1, 6))
    assert all(len(dict(report.digests[1])) == 3 for report in swarm.disk.steps)
    assert not swarm.disk.fenced and not swarm.disk.unlike
    assert all(OTHER in str(p.history) for n, p in swarm.peers.items() if n.startswith("s1"))


@pytest.mark.parametrize("seed", range(6))
def test_unlike_replicas_are_found_out_at_their_first_update(seed: int) -> None:
    swarm = world((1, 2), seed, only("s1p1"), steps=8)
    swarm.run()
    assert len(swarm.disk.unlike) == 1 and swarm.disk.unlike_stages == (1,)
    assert sum(swarm.disk.fenced.values()) == 1, "who differed gets the state once more"
    assert not swarm.disk.expelled
    assert len(dict(swarm.disk.steps[-1].digests[1])) == 2, "it is back"


@pytest.mark.parametrize("seed", range(6))
def test_unlike_newcomer_gets_in(seed: int) -> None:
    swarm = world((1, 1), seed, only("s1p1"), steps=12)
    swarm.run_until(2)
    swarm.spawn(1)
    swarm.run()
    assert len(swarm.disk.unlike) <= 1 and not swarm.disk.expelled
    assert len(dict(swarm.disk.steps[-1].digests[1])) == 2


@pytest.mark.parametrize("seed", range(4))
def test_resumed_trainer_knows_which_stages_are_unlike(seed: int) -> None:
    swarm = world((1, 2), seed, only("s1p1"), steps=8)
    swarm.run_until(4)
    assert swarm.disk.unlike_stages == (1,)
    swarm.kill_trainer()
    swarm.clock.after(1.0, swarm.resume_trainer)
    swarm.run()
    assert len(swarm.trainers) == 2 and len(swarm.disk.unlike) == 1


@pytest.mark.parametrize("seed", range(8))
def test_owner_that_is_lost_while_it_updates_voids_the_round_and_nothing_else(seed: int) -> None:
    swarm = world((1, 3), seed, only("s1p1"), by_owners=True)
    lost: list[PeerId] = []

    def at_failpoint(process: Process, passed: str) -> None:
        if passed == "trainer.update.after_send" and not lost and len(swarm.disk.steps) == 2:
            lost.append(PeerId("s1p0"))
            swarm.kill(lost[0])

    swarm.at_failpoint = at_failpoint
    swarm.run()
    assert lost and swarm.disk.recoveries["void round"] >= 1
    assert [report.version for report in swarm.disk.steps] == list(range(1, 6))


@pytest.mark.parametrize("seed", range(4))
def test_newcomer_adopts_what_owners_make_though_it_holds_other_weights(seed: int) -> None:
    """Found by a soak: a resumed trainer does not know which weights of the version count, and one
    that holds others stands still before it could say so. It follows a round, and is as the others
    are."""
    swarm = world((1, 2), seed, only("s1p1"), steps=8)
    swarm.run_until(1)
    assert swarm.disk.unlike_stages == (1,)
    outside = next(iter({"s1p0", "s1p1"} - set(dict(swarm.disk.steps[0].digests[1]))))
    swarm.kill_trainer()
    swarm.clock.after(1.0, swarm.resume_trainer)
    while not _is_admitted(swarm, PeerId(outside)):
        swarm.clock.step()
    swarm.pause(PeerId(outside), 6.0)
    swarm.run()
    assert len(swarm.trainers) == 2 and not swarm.disk.rollbacks
    assert len(dict(swarm.disk.steps[-1].digests[1])) == 2


def _is_admitted(swarm: World, peer: PeerId) -> bool:
    core = swarm.trainer.process.core
    assert isinstance(core, TrainerCore)
    member = core.run.members.get(peer)
    return len(swarm.trainers) == 2 and member is not None and member.state == "joining"


def test_who_holds_other_weights_of_a_version_could_not_take_over() -> None:
    """Found by a soak: a commit was called overdue while the only one with its weights hung."""
    sizes = Sizes(state_bytes=3000, gradient_bytes=1000, activation_bytes=1000)
    swarm = world((2, 1), 1, only("s0p1"), steps=20, sizes=sizes)
    swarm.run_until(1)
    (holds,) = (peer for peer, _ in swarm.disk.steps[0].digests[0])
    liveness = Liveness(swarm)
    assert liveness.is_able()
    swarm.hang(holds, "compute", 100.0)
    assert not liveness.is_able()


@pytest.mark.parametrize("first", [0, 10])
def test_no_schedule_breaks_a_promise(first: int) -> None:
    """Those of faults and of hardships; `scripts/simulate_faults --kind unlike` soaks."""
    for seed in range(first, first + 10):
        scenario = draw(seed)
        failure = failure_of(scenario)
        if failure is not None:
            raise AssertionError(shrink(scenario).story()) from failure
