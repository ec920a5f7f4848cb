"""Stories of processes that serve where they help most, in virtual time: they come, stand by, move
and fail at it, and no commit is lost."""

from __future__ import annotations

import re
from functools import partial

import pytest

from swarmrt.ids import PeerId, peer_of, seat_of
from swarmrt.messages import GiveUp, Message, Offer, Take
from swarmrt.scheduler.events import MoveRequested, PeerLost
from swarmrt.scheduler.failpoints import all_points
from swarmrt.scheduler.instructions import ReportMove, RunForward
from swarmrt.scheduler.recording import Header, of_json, replay, to_json
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.steward import Mover
from swarmrt.sim.schedules.moves import draw
from swarmrt.sim.schedules.requests import draw as draw_requests
from swarmrt.sim.schedules.shrinking import play_all
from swarmrt.sim.swarm.world import TRAINER, World

PACE_S = (0.1, 0.1)
AROUND_A_MOVE = re.compile(r"peer\.join\.|peer\.leave\.|\.standing\.|\.admit\.")
SEEDS = range(1, 40)  # until one of them comes to it


def anywhere(stages: int, number: int, rooms: int = 2) -> list[Mover]:
    return [Mover(tuple(range(stages)), rooms)] * number


def moving(
    replicas: tuple[int, ...], seed: int, movers: list[Mover], share: float, **how: object
) -> World:
    rebalancing = {"standby_share": share, "period_s": 5.0}
    how = {"service_s": PACE_S, "steps": 10, **how}
    return World(replicas, seed, movers=movers, rebalancing=rebalancing, **how)  # type: ignore[arg-type]


def core_of(world: World) -> TrainerCore:
    core = world.trainer.process.core
    assert isinstance(core, TrainerCore)
    return core


def served(world: World) -> list[list[PeerId]]:
    """Return the processes that take work, by stage."""
    run = core_of(world).run
    return [[peer_of(seat) for seat in run.members.ready(s)] for s in range(world.num_stages)]


def run_until(world: World, what: object, limit_s: float = 300.0) -> None:
    """Run until something is so."""
    assert callable(what)
    until = world.clock.now + limit_s
    while not what():
        assert world.clock.step() and world.clock.now < until, world.state()
        assert world.trainer.stopped is None


def stand_by(world: World, stage: int) -> list[PeerId]:
    """Return who holds the state of a stage and does not serve it."""
    admitted = core_of(world).run.members.of_stage(stage, Membership.ADMITTED)
    version = core_of(world).run.version
    follow = [m for m in admitted if m.agreed is not None and m.named_weights[0] == version]
    return [peer_of(member.peer) for member in follow]


@pytest.mark.parametrize("seed", range(6))
def test_newcomers_share_the_stages_out_evenly(seed: int) -> None:
    world = moving((0, 0, 0), seed, anywhere(3, 6), share=0.0)
    world.run()
    assert [len(dict(stage)) for stage in world.disk.steps[-1].digests] == [2, 2, 2]
    assert not world.disk.fenced and not world.disk.rollbacks


@pytest.mark.parametrize("seed", range(8))
def test_a_standby_of_another_stage_takes_over_from_the_only_replica(seed: int) -> None:
    """The standby's first microbatch there follows within a beacon, and nothing is done again but
    what was lost with the replica."""
    world = moving((2, 0), seed, anywhere(2, 2), share=1.0, steps=16, microbatches=12)
    run_until(world, lambda: all(served(world)) and any(stand_by(world, 1)))
    alone = served(world)[1]
    assert len(alone) == 1, "the other one serves stage 0, or stands by"
    run_until(world, lambda: any(stand_by(world, 1)) and core_of(world).run.commit is None)
    (heir,) = stand_by(world, 1)
    world.kill(alone[0])
    world.run()
    assert not world.disk.rollbacks and not world.disk.pauses
    assert seat_of(heir, 1) in dict(world.disk.steps[-1].digests[1])
    heard_at = next(r.now for r in world.trainer.process.history if isinstance(r.event, PeerLost))
    seat = world.peers[seat_of(heir, 1)].process
    first_at = next(
        record.now
        for record in seat.history
        if any(isinstance(instruction, RunForward) for instruction in record.instructions)
    )
    assert first_at - heard_at < BEACON_S


@pytest.mark.parametrize("seed", range(6))
def test_it_moves_when_its_stage_has_more_than_another_one(seed: int) -> None:
    """A stage loses one of two: a third one of the other one loads its state, serves there, and
    stands by where it served, until it is told to give that up. Nobody's work is lost."""
    world = moving((1, 1), seed, anywhere(2, 2), share=0.0, steps=30)
    run_until(world, lambda: [len(stage) for stage in served(world)] == [2, 2])
    world.spawn_mover()
    run_until(world, lambda: sum(map(len, served(world))) == 5)
    poor = min((0, 1), key=lambda stage: len(served(world)[stage]))
    world.kill(served(world)[poor][0])
    run_until(world, lambda: [len(stage) for stage in served(world)] == [2, 2])
    moved = next(move for move in world.disk.moves[::-1] if move.what == "serves")
    assert moved.stage == poor
    world.run()
    shown = [told for told in world.disk.arranged if told.peer == moved.peer]
    phases = [told.phase for told in shown if told.phase and told.serves]
    assert phases[-1] == "draining" and phases[0] == "loading", shown
    assert set(phases) <= {"loading", "switching", "serving both", "draining"}
    assert (shown[-1].serves, shown[-1].phase, shown[-1].to) == ((poor,), "", None), shown
    its = [(m.what, m.stage) for m in world.disk.moves if m.peer == moved.peer]
    assert its[-3:] == [("loads", poor), ("serves", poor), ("forgets", 1 - poor)]
    lost = [why for why in world.disk.fenced if "killed" not in why]
    late = "it cannot be reached"  # its last beacon came after it had left
    given_up = ("it has left", "its process has closed the seat", late)
    assert all(why.endswith(given_up) for why in lost), lost


@pytest.mark.parametrize("seed", range(4))
def test_who_is_pinned_or_has_no_room_stays(seed: int) -> None:
    movers = [Mover((0, 1), 2, is_pinned=True), Mover((0, 1), 1)]
    world = moving((1, 1), seed, movers, share=1.0, steps=20)
    run_until(world, lambda: sum(map(len, served(world))) == 4)
    where = served(world)
    world.spawn_mover(Mover((0,), 1))
    world.spawn_mover(Mover((0,), 1))
    world.run()
    for stage in (0, 1):
        stayed = {peer_of(seat) for seat, _ in world.disk.steps[-1].digests[stage]}
        assert {peer for peer in where[stage] if peer.startswith("m")} <= stayed
    assert {peer_of(seat) for seat, _ in world.disk.steps[-1].digests[0]} >= {"m2", "m3"}


@pytest.mark.parametrize("seed", range(4))
def test_only_allowed_stages_are_served(seed: int) -> None:
    world = moving((1, 1, 1), seed, [Mover((2,), 2), Mover((1, 2), 2)], share=1.0)
    world.run()
    assert not any(name in world.peers for name in ("m0/0", "m0/1", "m1/0"))
    assert "m0/2" in world.peers


@pytest.mark.parametrize("seed", range(4))
def test_who_does_not_follow_orders_is_left_in_peace(seed: int) -> None:
    """A process never hears an order: others are arranged without it, and it is asked rarely."""
    world = moving((1, 1), seed, anywhere(2, 3), share=1.0, steps=40, service_s=(0.3, 0.3))
    deaf, send = PeerId("m1"), world.network.send
    orders = 0

    def only_others(sender: PeerId, to: PeerId, message: Message, *more: object) -> None:
        nonlocal orders
        if to == deaf and isinstance(message, Take):
            orders += 1
            return
        send(sender, to, message, *more)  # type: ignore[arg-type]

    world.network.send = only_others  # type: ignore[assignment,method-assign]
    world.run()
    assert 1 <= orders <= 10 and not any(peer_of(name) == deaf for name in world.peers)
    assert any(move.peer == deaf and move.what == "stays" for move in world.disk.moves)
    movers = {peer_of(seat) for stage in world.disk.steps[-1].digests for seat, _ in stage}
    assert {"m0", "m2"} <= movers


@pytest.mark.parametrize("seed", range(6))
def test_a_new_trainer_arranges_those_that_it_finds(seed: int) -> None:
    world = moving((0, 0), seed, anywhere(2, 3), share=1.0, steps=14)
    world.run_until(3)
    world.kill_trainer()
    world.clock.after(1.0, world.resume_trainer)
    world.run()
    assert len(world.trainers) == 2 and not world.disk.rollbacks
    assert all(dict(stage) for stage in world.disk.steps[-1].digests)


def test_without_rebalancing_nobody_is_told_anything() -> None:
    world = World((1, 1), 3, movers=anywhere(2, 2), rebalancing={"enabled": False})
    world.run()
    assert not world.disk.moves and not any(name.startswith("m") for name in world.peers)


@pytest.mark.parametrize("seed", range(3))
def test_logs_replay(seed: int) -> None:
    world = moving((0, 1), seed, anywhere(2, 4), share=0.5)
    world.run_until(2)
    world.kill(served(world)[1][0])
    world.run()
    for log in world.log().values():
        header, *records = [of_json(to_json(record)) for record in log]
        assert isinstance(header, Header)
        told = [record for record in records if not isinstance(record, Header)]
        assert all(again == record.instructions for record, again in replay(header, told))


# ---------------------------------------------------------------------- failing half way


def eventful(seed: int) -> World:
    """Peers come, go and are killed, so that others move."""
    shares = (0.0, 0.5, 1.0)
    world = moving((0, 1), seed, anywhere(2, 4), share=shares[seed % 3], steps=14)
    world.run_until(1)
    for at_s, stage in ((1.0, 0), (4.0, 1), (7.0, 0)):
        world.clock.after(at_s, partial(kill_one, world, stage))
        world.clock.after(at_s + 1.0, partial(come, world))
    world.clock.after(9.0, partial(drain_one, world))
    return world


def come(world: World) -> None:
    world.spawn_mover()


def drain_one(world: World) -> None:
    for peer in served(world)[0][:1]:
        world.drain(peer)


def kill_one(world: World, stage: int) -> None:
    if len(world.live(stage)) > 1 and world.trainer.stopped is None:
        for peer in served(world)[stage][:1]:
            world.kill(peer)


@pytest.mark.parametrize("action", ["kill", "pause"])
@pytest.mark.parametrize(
    "point",
    [
        *(point for point in all_points() if ".move." in point),
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in all_points()
            if AROUND_A_MOVE.search(point)
        ),
    ],
)
def test_failpoint(point: str, action: str) -> None:
    """The first process that passes it, and the third, fail there; `run` checks the promises."""
    assert any(fails_at(point, action, seed) for seed in SEEDS), f"nobody passed {point}"


def fails_at(point: str, action: str, seed: int) -> bool:
    world, passages, failed = eventful(seed), 0, False

    def at_failpoint(process: Process, passed: str) -> None:
        nonlocal passages, failed
        if passed != point:
            return
        passages += 1
        if passages not in (1, 3):
            return
        failed = True
        if action == "pause":
            world.pause(process.me, 3.0)
        elif process.me == TRAINER:
            world.kill_trainer()
            world.clock.after(2.0, world.resume_trainer)
        else:
            world.kill(process.me)
            world.clock.after(2.0, lambda: replace_missing(world))

    world.at_failpoint = at_failpoint
    world.run()
    return failed


def replace_missing(world: World) -> None:
    """Start a replica of each stage that nobody holds any more."""
    for stage in range(world.num_stages):
        if not world.live(stage) and world.trainer.stopped is None:
            world.spawn(stage)


@pytest.mark.parametrize("what", ["doubled", "lost", "lost again and again"])
@pytest.mark.parametrize("kind", [Offer, Take, GiveUp], ids=lambda kind: kind.__name__)
def test_message_comes_twice_or_not_at_all(kind: type[Message], what: str) -> None:
    assert any(arrives_otherwise(kind, what, seed) for seed in SEEDS)


def arrives_otherwise(kind: type[Message], what: str, seed: int) -> bool:
    world, count = eventful(seed), 0

    def copies(message: Message) -> int:
        nonlocal count
        if type(message) is not kind:
            return 1
        count += 1
        if what == "doubled":
            return 2
        return int(count not in (2, 5, 9) if what == "lost" else count > 20 or count % 3 == 0)

    world.network.copies = copies
    world.run()
    return count > 0


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_schedule_breaks_a_promise(first: int) -> None:
    """Those of faults and of hardships, with processes that serve where they help most. A soak
    plays more: `scripts/simulate_faults --kind moves`."""
    play_all(map(draw, range(first, first + 10)))


@pytest.mark.parametrize("seed", [1022, 1046, 70266])
def test_the_last_state_of_a_stage_is_not_given_up(seed: int) -> None:
    """Found by a soak: of the few that a mass death had left, one gave up a state that nobody else
    had, since it had no slot for it, and the run stood still for good."""
    play_all([draw(seed)])


def test_who_is_done_without_at_one_stage_is_not_wanted_at_another_one() -> None:
    """Found by a soak: a process whose thread hangs was fenced at one stage, served at the other
    one at once, where it stood by, and was waited for there as well."""
    play_all([draw(60108)])


def test_one_that_follows_and_has_voided_its_term_is_admitted_anew() -> None:
    """Found by a soak: a link broke at one end alone. The standby was told its admission again,
    which was of version 0, and gave version 1 up for it; nobody else had that soon afterwards."""
    play_all([draw(70317)])


def test_stages_of_unequal_work_are_shared_out_and_nobody_moves_any_more() -> None:
    """The replicas of the stage with most work are as fast as the others, and only look slow."""
    work = (3.0, 1.0, 1.0)
    many = {"steps": 100, "microbatches": 24, "eval_every": 0, "checkpoint_every": 0}
    world = moving((0, 0, 0), 0, anywhere(3, 6), share=0.0, work=work, **many)
    run_until(world, lambda: core_of(world).run.version == 40, limit_s=1200.0)
    settled = len(world.disk.moves)
    run_until(world, lambda: core_of(world).run.version == 99, limit_s=1200.0)
    assert len(served(world)[0]) >= 3 and len(world.disk.moves) == settled


@pytest.mark.parametrize("first", range(0, 10, 5))
def test_no_schedule_with_moves_that_are_asked_for_breaks_a_promise(first: int) -> None:
    play_all(map(draw_requests, range(first, first + 5)))


@pytest.mark.parametrize("seed", range(2))
def test_who_is_asked_moves_and_stays_although_that_gains_nothing(seed: int) -> None:
    """It serves where one was missing, and is wanted at the other stage: it loads, serves there,
    and comes back once it may, as that is better."""
    world = moving((2, 1), seed, anywhere(2, 1), share=0.0, steps=80)
    run_until(world, lambda: [len(stage) for stage in served(world)] == [2, 2])
    world.trainer.process.feed(MoveRequested(PeerId("m0"), 0, 20.0))
    asked_at = world.clock.now
    run_until(world, lambda: [len(stage) for stage in served(world)] == [3, 1])
    assert world.clock.now < asked_at + 20.0
    run_until(world, lambda: [len(stage) for stage in served(world)] == [2, 2])
    assert world.clock.now > asked_at + 20.0
    world.run()
    assert not world.disk.rollbacks and not world.disk.pauses


def test_what_an_owner_does_not_allow_is_asked_of_nobody() -> None:
    """A pinned process, one at a stage that is not its own, one without room, and nobody at all."""
    movers = [Mover((0, 1), 2, is_pinned=True), Mover((0,), 2), Mover((0, 1), 1)]
    world = moving((1, 1), 1, movers, share=0.0, steps=30)
    run_until(world, lambda: sum(map(len, served(world))) == 5)
    before = served(world)
    for number in range(4):
        for stage in (0, 1, 7):
            told = core_of(world).handle(
                MoveRequested(PeerId(f"m{number}"), stage, 30.0), world.trainer.process.now
            )
            assert not any(isinstance(one, ReportMove) for one in told), (number, stage)
    assert served(world) == before
