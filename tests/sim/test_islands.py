"""Simulated swarms in islands: routes stay in one, and nobody stands still when one has lost a
stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Claim, Path
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.instructions import ReportIslands
from swarmrt.scheduler.recording import Header, Record, of_json, replay
from swarmrt.sim.swarm.world import World

ISLANDS = {"strategy": "diloco", "local_batch": 4, "islands": 2}


def routes(world: World) -> Iterator[tuple[float, Path, dict[PeerId, int]]]:
    """Return when each claim came, its route, and in which islands replicas were then."""
    islands: dict[PeerId, int] = {}
    for record in world.trainer.process.history:
        match record.event:
            case Received(message=Claim(route=route)):
                yield record.now, route, dict(islands)
        for told in record.instructions:
            if isinstance(told, ReportIslands):
                islands |= dict(told.moved)


def over(route: Path, islands: dict[PeerId, int]) -> set[int]:
    return {islands.get(peer, 0) for peer in route}


@pytest.mark.parametrize("replicas", [[2, 2, 2], [3, 2, 4]])
def test_routes_stay_in_islands(replicas: list[int]) -> None:
    world = World(replicas, 3, steps=6, microbatches=24, averaging=ISLANDS)
    world.run()
    islands = Counter[int]()
    for _, route, where in routes(world):
        assert len(over(route, where)) == 1, (route, where)
        islands.update(over(route, where))
    assert set(islands) == {0, 1} and min(islands.values()) > 6 * 24 / 5
    assert [report.number for report in world.disk.islands[-1:]] == [2]


def test_an_island_that_has_lost_a_stage_works_on_in_the_other_one() -> None:
    world = World([2, 2, 2], 4, steps=16, microbatches=24, averaging=ISLANDS)
    world.run_until(version=4)
    world.kill(PeerId("s1p0"))
    lost_at = world.trainer.process.now
    world.run_until(version=8)
    world.spawn(1)
    world.run()
    assert [report.number for report in world.disk.islands] == [2, 1, 2]
    alone = Counter(route[0] for at, route, _ in routes(world) if lost_at + 2 < at < lost_at + 20)
    assert set(alone) == {"s0p0", "s0p1"}, "both replicas of stage 0 have somebody to give to"
    *_, (_, last, where) = routes(world)
    assert len(over(last, where)) == 1
    assert all(len(peer.history) == 16 for peer in world.peers.values() if peer.process.alive)


def test_an_island_whose_own_link_is_cut_gives_its_work_to_the_other_one() -> None:
    """Both are heard by the trainer, so it knows of nothing that would be wrong."""
    world = World([2, 2], 5, steps=12, microbatches=24, averaging=ISLANDS)
    world.run_until(version=3)
    islands = dict(world.disk.islands[-1].moved)
    zero = next(m for m in ("s0p0", "s0p1") if islands.get(PeerId(m), 0) == 0)
    one = next(m for m in ("s1p0", "s1p1") if islands.get(PeerId(m), 0) == 0)
    cut_at = world.trainer.process.now
    world.network.cut(PeerId(zero), PeerId(one), 1000.0)
    world.run()
    routes_of_it = [r for at, r, _ in routes(world) if at > cut_at + 10 and r[0] == zero]
    assert routes_of_it and one not in {route[1] for route in routes_of_it}


def test_logs_replay() -> None:
    world = World([2, 2], 6, steps=5, microbatches=6, averaging=ISLANDS)
    world.run_until(version=2)
    world.kill(PeerId("s1p1"))
    world.run()
    for log in world.log().values():
        header, *records = (of_json(json.dumps(entry)) for entry in log)
        assert isinstance(header, Header)
        told = [record for record in records if isinstance(record, Record)]
        assert all(again == record.instructions for record, again in replay(header, told))
