"""Serving a stage: the run is looked up, the stage built, and a peer lives until it is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import (
    CheckpointError,
    ConfigError,
    RunChanged,
    RunError,
    SwarmError,
    UsageError,
)
from swarmrt.model.builders import check_consent
from swarmrt.model.code import check_code
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.sizing import capacity, footprint
from swarmrt.model.stage import Stage
from swarmrt.run_identity import check_release, differences, fingerprint, library_notes
from swarmrt.runtime.computing.free_memory import check_fits
from swarmrt.runtime.directory.looking_up import find_run
from swarmrt.runtime.directory.network import open_network
from swarmrt.runtime.owner.answering import answering
from swarmrt.runtime.peer.allowed import steward_settings, with_stages
from swarmrt.runtime.peer.lending import Lending
from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.peer.peer_host import PeerHost
from swarmrt.runtime.peer.serve_options import ServeOptions, Threads
from swarmrt.runtime.peer.steward import Steward
from swarmrt.runtime.peer.unable import telling_trainer
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.worker import Worker
from swarmrt.runtime.state.left_state import LeftState
from swarmrt.scheduler.wiring.policy import check_policy
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Age, Published

FREE_S = 300.0  # for a computation that is under way; a device that hangs would never be done


class HeldState(NamedTuple):
    """The state of one seat."""

    tensors: dict[str, torch.Tensor]
    version: int
    update: tuple[int, float]


class Held(NamedTuple):
    """The states that a process holds of a run that has become another one, or has another
    trainer."""

    config: RunConfig
    trainer: str
    states: dict[int, HeldState]  # by stage
    age: Age  # the least one of the record that says what the run is now
    why: str  # it is looked up again


async def serve(
    options: ServeOptions, switch: StopSwitch, say: Callable[[str], None] = print
) -> None:
    """Serve a seat of each stage until the run is over or the switch is thrown.

    When the run's owner has changed its configuration, it is served as it is now, with the state
    that is held. Raises UsageError for a run or stage that does not exist, RunError when the run
    cannot go on.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    lending = Lending(options, switch, say)
    held: Held | None = None
    async with answering(lending.answer):
        while True:
            held = await _serve_as_it_is(options, switch, say, held, lending)
            if held is None:
                return
            say(f"{held.why}; it is looked up again")


async def _serve_as_it_is(
    options: ServeOptions,
    switch: StopSwitch,
    say: Callable[[str], None],
    held: Held | None,
    lending: Lending,
) -> Held | None:
    """Serve the run until it is over, or another one: then return what is held of it."""
    line, kept = options.line, options.kept
    papers = GuestsPapers(line, kept.membership() if kept is not None else "")
    async with open_network(
        line.addresses,
        options.place,
        options.identity,
        options.faults,
        papers,
        private=line.invite is not None,
        waiting=say if options.wait else None,
        link_bytes_per_s=options.link_bytes_per_s,
        down_bytes_per_s=options.down_bytes_per_s,
        with_links=True,
    ) as network:
        if not options.place.is_loopback:
            say(network.describe())
        newest = kept.newest() if kept is not None else (0, -1)
        newest = max(newest, held.age) if held is not None else newest
        directory, wait = network.directory, options.wait or held is not None
        finding = find_run(directory, line.run, wait=wait, newer_than=newest, say=say)
        record = await network.while_up(finding)
        network.relays.consider(network.reach.multiaddrs(record.addresses))
        async with (
            Worker("torch", in_groups=True) as torch_thread,
            Worker("reduce") as reduce_thread,
            Worker("to-host") as to_host_thread,
        ):
            threads = Threads(torch_thread, reduce_thread, to_host_thread)
            async with telling_trainer(network, record, options.stages):
                config = _config_of(record, options, held)
                options, may = with_stages(config, options)
                begins = options.stages if may is None else _held_among(options.stages, held)
                for what in differences(held.config, config).values() if held is not None else ():
                    say(f"of the run that was served before, {what}")
                for note in library_notes(config, f"the trainer of run {line.run}"):
                    say(note)
                compute_repeatably(config, options.device)
                building = partial(_new_stages, config, options, begins)
                stages, holds = await torch_thread.call(building)
            if kept is not None:
                kept.keep_newest(record.age)
                kept.keep_line(line.with_addresses(record.addresses))
            host = PeerHost(config, network, record, threads, options)
            places: dict[int, LeftState | None] = {}

            async def seat(stage: Stage) -> None:
                left = places[stage.stage_index] = _place_of(stage, options, record)
                update = await torch_thread.call(partial(_take_up, left, held, config, stage, say))
                room = holds.get(stage.stage_index, 0)
                serves = "is a spare for" if options.is_spare else "serves"
                say(
                    f"peer {network.me} {serves} stage {stage.stage_index} of {config.num_stages} "
                    f"of run {line.run}: {stage.num_parameters:,} parameters on {options.device}"
                    f"{_room(room)}"
                )
                around = (host.around, host.membership, stage, threads, options)
                host.seat(Peer(*around, update=update, holds=room))

            async def open_at(stage: int) -> None:
                beside = tuple(peer.seat for peer in host.seats)
                building = partial(_new_stages, config, options, (stage,), beside)
                (stage_here,), has_room = await torch_thread.call(building)
                holds.update(has_room)
                await seat(stage_here)

            for stage in stages:
                await seat(stage)
            if may is not None:
                trainer = host.membership.trainer
                settings = steward_settings(network.me, trainer, config, options, may, begins)
                about = (host.around, host.membership, settings, open_at, host.close_seat)
                host.is_led_by(Steward(*about, options.log_dir, options.failpoints))
                say(f"peer {network.me} serves run {line.run} where it helps most: {may}")
            reason, changed = "", None
            try:
                reason = await host.serve(switch, lending)
            except* RunChanged as group:
                changed = _first_of(group)
            finally:
                await _leave_states(torch_thread, host.seats, places, config, say)
            if changed is not None:
                states = {peer.seat: await _state_of(torch_thread, peer) for peer in host.seats}
                age = (record.born, changed.epoch)
                return Held(config, record.trainer, states, age, str(changed))
            version = min((peer.stage.version for peer in host.seats), default=0)
            say(f"peer {network.me} leaves at step {version}: {reason}")
            return None


async def _leave_states(
    thread: Worker,
    seats: Sequence[Peer],
    places: Mapping[int, LeftState | None],
    config: RunConfig,
    say: Callable[[str], None],
) -> None:
    """Leave the state of each seat that has a place for it. What cannot be written of one loses
    nothing of the others. Raises the first error, once all were tried."""
    failed: SwarmError | None = None
    for peer in seats:
        left = places[peer.seat]
        if left is None:
            continue
        leave = partial(left.leave, config, peer.stage, *peer.update)
        what = f"version {peer.stage.version} of stage {peer.seat}"
        try:
            say(await leave_state(thread, leave, what, left.folder))
        except SwarmError as error:
            say(f"{what} is not left: {error}")
            failed = failed or error
    if failed is not None:
        raise failed


async def _state_of(thread: Worker, peer: Peer) -> HeldState:
    """Return the state that a seat holds. Raises RunError when its device does not answer."""
    try:
        async with asyncio.timeout(FREE_S):
            tensors: dict[str, torch.Tensor] = await thread.call(peer.stage.state)
            return HeldState(tensors, peer.stage.version, peer.update)
    except TimeoutError:
        raise RunError(
            f"the run has another configuration now, and the device has not answered for "
            f"{FREE_S:.0f} s; start this peer again"
        ) from None


def _first_of(group: BaseExceptionGroup[RunChanged]) -> RunChanged:
    """Return the first of them, however deep it lies."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def leave_state(
    thread: Worker, leave: Callable[[], None], what: str, folder: Path, free_s: float = FREE_S
) -> str:
    """Leave a state in its folder, which may take long, if the thread that uses it is done within
    so many seconds; return what became of it."""
    try:
        async with asyncio.timeout(free_s):
            await thread.call(lambda: None)
    except TimeoutError:
        return f"{what} is not left: its device has not answered for {free_s:.0f} s"
    await thread.call(leave)
    return f"{what} is left in {folder}"


def _config_of(record: Published, options: ServeOptions, held: Held | None) -> RunConfig:
    """Return what the record asks for, if it makes sense, this machine's owner allows it, and it is
    what the trainer speaks of."""
    whose = f"run {options.line.run}"
    check_release(record.config, whose)
    config = parse_config(record.config, whose)
    check_consent(config, options.allow_models, whose)
    check_code(config, whose)
    check_policy(config.wiring.policy, options.allow_policies, whose)
    if config.stages.layers is None:
        raise ConfigError(f"{whose}: stages.layers is missing: how the model is cut")
    for stage in options.stages:
        if not 0 <= stage < config.num_stages:
            raise UsageError(
                f"{whose} has stages 0 to {config.num_stages - 1}; there is no stage {stage}"
            )
    islands = config.averaging.islands
    if options.island >= islands:
        there_are = f"islands 0 to {islands - 1}" if islands > 1 else "no islands"
        raise UsageError(f"{whose} has {there_are}; there is no island {options.island}")
    if held is not None and held.trainer == record.trainer:
        _refuse_what_was_held(held, config, whose)
    return config


def _refuse_what_was_held(held: Held, config: RunConfig, whose: str) -> None:
    """Refuse a configuration of which its own trainer says that it is another one."""
    if fingerprint(held.config) == fingerprint(config):
        raise RunError(
            f"the trainer of {whose} says that it is another run than its record; it may have "
            "another version of swarmrt"
        )


def _take_up(
    left: LeftState | None,
    held: Held | None,
    config: RunConfig,
    stage: Stage,
    say: Callable[[str], None],
) -> tuple[int, float]:
    """Load what is held, or an earlier process has left; return the round and the norm of its last
    update."""
    if held is not None and stage.stage_index in held.states:
        state = held.states[stage.stage_index]
        try:
            stage.load_state(state.tensors, state.version)
        except CheckpointError as error:
            say(f"version {state.version} is given up: {error}")
            return -1, 0.0
        return state.update
    found = left.take_up(config, stage) if left is not None else None
    if left is None or found is None:
        return -1, 0.0
    say(f"version {found.version} of stage {found.stage} is taken up from {left.folder}")
    return found.applied, found.norm


def _new_stages(
    config: RunConfig, options: ServeOptions, wanted: Sequence[int], held: Sequence[int] = ()
) -> tuple[list[Stage], dict[int, int]]:
    """Return the stages, and how many microbatches each has room for, if they fit into this
    machine's memory together, and beside those that are held here already: of what is free those
    have taken theirs."""
    holds: dict[int, int] = {}
    if wanted and options.max_memory_bytes != math.inf:
        is_told = options.max_memory_bytes is not None
        needed = [footprint(config, stage) for stage in held] if is_told else []
        left_bytes = math.inf
        for stage in wanted:
            footprints = (footprint(config, stage), options.device, options.max_memory_bytes)
            left_bytes = check_fits(*footprints, stage, needed)
            needed.append(footprints[0])
        share_bytes = left_bytes / len(needed)
        for stage, each in zip(wanted, needed[len(needed) - len(wanted) :], strict=True):
            holds[stage] = capacity(config, each, share_bytes)
    return [options.new_stage(config, stage, options.device) for stage in wanted], holds


def _room(holds: int) -> str:
    """Return how much room a stage has, for people."""
    return f", with room for {holds} microbatches at a time" if holds else ""


def _held_among(stages: Sequence[int], held: Held | None) -> tuple[int, ...]:
    """Return at which of these stages a state is held."""
    return tuple(stage for stage in stages if held is not None and stage in held.states)


def _place_of(stage: Stage, options: ServeOptions, run: Published) -> LeftState | None:
    """Return where the state of a stage is left and taken up, if the owner wants that."""
    folder = options.state_dir
    if folder is None:
        return None
    return LeftState(folder, str(options.line.run), run.born, stage.stage_index)
