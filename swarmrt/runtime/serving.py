"""Serving a stage: the run is looked up, the stage built, and a peer lives until it is over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import torch

from swarmrt.config import parse_config
from swarmrt.errors import UsageError
from swarmrt.runtime.network import find_run, open_network
from swarmrt.runtime.peer import Peer, ServeOptions, Threads
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.runtime.worker import Worker


async def serve(
    options: ServeOptions, switch: StopSwitch, say: Callable[[str], None] = print
) -> None:
    """Serve one stage until the run is over or the switch is thrown.

    Raises UsageError for a run or stage that does not exist, RunError when the run cannot go on.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    async with open_network(
        options.join,
        options.place,
        options.identity,
        options.faults,
        waiting=say if options.wait else None,
    ) as network:
        if not options.place.is_loopback:
            say(network.describe())
        record = await find_run(network.directory, options.run, wait=options.wait)
        network.relays.consider(record.addresses)
        config = parse_config(record.config, f"run {options.run!r}")
        if not 0 <= options.stage < config.num_stages:
            raise UsageError(
                f"run {options.run!r} has stages 0 to {config.num_stages - 1}; "
                f"there is no stage {options.stage}"
            )
        with (
            closing(Worker("torch", in_groups=True)) as torch_thread,
            closing(Worker("reduce")) as reduce_thread,
            closing(Worker("to-host")) as to_host_thread,
        ):
            threads = Threads(torch_thread, reduce_thread, to_host_thread)
            new_stage = partial(options.new_stage, config, options.stage, options.device)
            stage = await torch_thread.call(new_stage)
            say(
                f"peer {network.me} serves stage {options.stage} of {config.num_stages} of run "
                f"{options.run!r}: {stage.num_parameters:,} parameters on {options.device}"
            )
            peer = Peer(config, stage, network, record, threads, options)
            reason = await peer.run(switch)
            say(f"peer {network.me} leaves at step {peer.stage.version}: {reason}")
