"""Serving a stage: the run is looked up, the stage built, and a peer lives until it is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from swarmrt.config import RunConfig, parse_config
from swarmrt.errors import ConfigError, UsageError
from swarmrt.model.builders import check_consent
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.sizing import footprint
from swarmrt.model.stage import Stage
from swarmrt.runtime.free_memory import check_fits
from swarmrt.runtime.left_state import LeftState
from swarmrt.runtime.network import find_run, open_network
from swarmrt.runtime.peer import Peer
from swarmrt.runtime.serve_options import ServeOptions, Threads
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.runtime.worker import Worker
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Published

FREE_S = 300.0  # for a computation that is under way; a device that hangs would never be done


async def serve(
    options: ServeOptions, switch: StopSwitch, say: Callable[[str], None] = print
) -> None:
    """Serve one stage until the run is over or the switch is thrown.

    Raises UsageError for a run or stage that does not exist, RunError when the run cannot go on.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
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
    ) as network:
        if not options.place.is_loopback:
            say(network.describe())
        newest = kept.newest() if kept is not None else (0, -1)
        directory = network.directory
        record = await find_run(directory, line.run, wait=options.wait, newer_than=newest, say=say)
        network.relays.consider(network.reach.multiaddrs(record.addresses))
        config = _config_of(record, options)
        compute_repeatably(config, options.device)
        async with (
            Worker("torch", in_groups=True) as torch_thread,
            Worker("reduce") as reduce_thread,
            Worker("to-host") as to_host_thread,
        ):
            threads = Threads(torch_thread, reduce_thread, to_host_thread)
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
            update = await torch_thread.call(partial(_take_up, left, config, stage, say))
            peer = Peer(config, stage, network, record, threads, options, update)
            try:
                reason = await peer.run(switch)
            finally:
                if left is not None:
                    leave = partial(left.leave, config, peer.stage, *peer.update)
                    what = f"version {peer.stage.version} of stage {options.stage}"
                    say(await leave_state(torch_thread, leave, what, left.folder))
            say(f"peer {network.me} leaves at step {peer.stage.version}: {reason}")


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


def _config_of(record: Published, options: ServeOptions) -> RunConfig:
    """Return what the record asks for, if it makes sense and this machine's owner allows it."""
    whose = f"run {options.line.run}"
    config = parse_config(record.config, whose)
    check_consent(config, options.allow_models, whose)
    if config.stages.layers is None:
        raise ConfigError(f"{whose}: stages.layers is missing: how the model is cut")
    if not 0 <= options.stage < config.num_stages:
        raise UsageError(
            f"{whose} has stages 0 to {config.num_stages - 1}; there is no stage {options.stage}"
        )
    return config


def _take_up(
    left: LeftState | None, config: RunConfig, stage: Stage, say: Callable[[str], None]
) -> tuple[int, float]:
    """Load what an earlier process has left; return the round and the norm of its last update."""
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
