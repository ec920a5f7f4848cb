"""Serving a stage: the run is looked up, the stage built, and a peer lives until it is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from swarmrt.config import RunConfig, parse_config
from swarmrt.errors import CheckpointError, ConfigError, RunChanged, RunError, UsageError
from swarmrt.model.builders import check_consent
from swarmrt.model.code import check_code
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.sizing import footprint
from swarmrt.model.stage import Stage
from swarmrt.run_identity import check_release, differences, fingerprint, library_notes
from swarmrt.runtime.computing.free_memory import check_fits
from swarmrt.runtime.directory.looking_up import find_run
from swarmrt.runtime.directory.network import open_network
from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.peer.serve_options import ServeOptions, Threads
from swarmrt.runtime.peer.unable import telling_trainer
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.worker import Worker
from swarmrt.runtime.state.left_state import LeftState
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Age, Published

FREE_S = 300.0  # for a computation that is under way; a device that hangs would never be done


class Held(NamedTuple):
    """The state that a peer holds of a run that has become another one, or has another trainer."""

    config: RunConfig
    trainer: str
    tensors: dict[str, torch.Tensor]
    version: int
    update: tuple[int, float]
    age: Age  # the least one of the record that says what the run is now
    why: str  # it is looked up again


async def serve(
    options: ServeOptions, switch: StopSwitch, say: Callable[[str], None] = print
) -> None:
    """Serve one stage until the run is over or the switch is thrown.

    When the run's owner has changed its configuration, it is served as it is now, with the state
    that is held. Raises UsageError for a run or stage that does not exist, RunError when the run
    cannot go on.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    held: Held | None = None
    while True:
        held = await _serve_as_it_is(options, switch, say, held)
        if held is None:
            return
        say(f"{held.why}; it is looked up again")


async def _serve_as_it_is(
    options: ServeOptions, switch: StopSwitch, say: Callable[[str], None], held: Held | None
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
        max_mbps=options.max_mbps,
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
            async with telling_trainer(network, record, options.stage):
                config = _config_of(record, options, held)
                for what in differences(held.config, config).values() if held is not None else ():
                    say(f"of the run that was served before, {what}")
                for note in library_notes(config, f"the trainer of run {line.run}"):
                    say(note)
                compute_repeatably(config, options.device)
                stage = await torch_thread.call(partial(_new_stage, config, options))
            say(
                f"peer {network.me} serves stage {options.stage} of {config.num_stages} of run "
                f"{line.run}: {stage.num_parameters:,} parameters on {options.device}"
            )
            if kept is not None:
                kept.keep_newest(record.age)
                kept.keep_line(line.with_addresses(record.addresses))
            left = None
            if options.state_dir is not None:
                left = LeftState(options.state_dir, str(line.run), record.born, options.stage)
            update = await torch_thread.call(partial(_take_up, left, held, config, stage, say))
            peer = Peer(config, stage, network, record, threads, options, update)
            reason, changed = "", None
            try:
                reason = await peer.run(switch)
            except* RunChanged as group:
                changed = _first_of(group)
            finally:
                if left is not None:
                    leave = partial(left.leave, config, peer.stage, *peer.update)
                    what = f"version {peer.stage.version} of stage {options.stage}"
                    say(await leave_state(torch_thread, leave, what, left.folder))
            if changed is not None:
                tensors = await _state_of(torch_thread, peer)
                version, age = peer.stage.version, (record.born, changed.epoch)
                known = (config, record.trainer, tensors, version, peer.update, age)
                return Held(*known, str(changed))
            say(f"peer {network.me} leaves at step {peer.stage.version}: {reason}")
            return None


async def _state_of(thread: Worker, peer: Peer) -> dict[str, torch.Tensor]:
    """Return the state that a peer holds. Raises RunError when its device does not answer."""
    try:
        async with asyncio.timeout(FREE_S):
            state: dict[str, torch.Tensor] = await thread.call(peer.stage.state)
            return state
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
    if config.stages.layers is None:
        raise ConfigError(f"{whose}: stages.layers is missing: how the model is cut")
    if not 0 <= options.stage < config.num_stages:
        raise UsageError(
            f"{whose} has stages 0 to {config.num_stages - 1}; there is no stage {options.stage}"
        )
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
    if held is not None:
        try:
            stage.load_state(held.tensors, held.version)
        except CheckpointError as error:
            say(f"version {held.version} is given up: {error}")
            return -1, 0.0
        return held.update
    found = left.take_up(config, stage) if left is not None else None
    if left is None or found is None:
        return -1, 0.0
    say(f"version {found.version} of stage {found.stage} is taken up from {left.folder}")
    return found.applied, found.norm


def _new_stage(config: RunConfig, options: ServeOptions) -> Stage:
    """The stage, if it fits into this machine's memory."""
    if options.max_memory_bytes != math.inf:
        needed = footprint(config, options.stage)
        check_fits(needed, options.device, options.max_memory_bytes, options.stage)
    return options.new_stage(config, options.stage, options.device)
