"""Asking a run's trainer from which facts it would decide now, as somebody who takes no part."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import torch

from swarmrt.config_toml import parse_config
from swarmrt.errors import DirectoryError, RunError
from swarmrt.ids import PeerId, RunId
from swarmrt.messages import Facts, GetFacts, Idle, Message
from swarmrt.runtime.directory.network import Network, open_network
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.observing.facts_in_bytes import read_facts
from swarmrt.runtime.reach.place import Place
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Published

PATIENCE_S = 30.0  # for the answer, with the link that it takes
AGAIN_S = 5.0  # after which a question that was not answered is asked again


class Told(NamedTuple):
    """A trainer's word on its run. There is no swarm where it decides nothing."""

    run: RunId
    version: int
    idle: Idle
    standby_share: float
    swarm: Swarm | None


async def ask_for_facts(line: JoinLine, place: Place) -> Told:
    """Join the directory, find the trainer, and ask it. Raises DirectoryError when there is no
    such run, RunError when it does not answer, or not enough; both say why."""
    papers, private = GuestsPapers(line), line.invite is not None
    async with open_network(line.addresses, place, papers=papers, private=private) as network:
        record = await network.directory.find_run(line.run)
        if record is None:
            raise DirectoryError(
                await network.directory.why_clocks_hide()
                or f"the directory knows no run {line.run}: it is over, its trainer has been gone "
                "for a minute, or the name is of another one"
            )
        return await _ask(network, line, record)


async def _ask(network: Network, line: JoinLine, record: Published) -> Told:
    whose = f"run {line.run}"
    config = parse_config(record.config, whose)
    trainer, number = PeerId(record.trainer), secrets.randbits(31)
    answer: asyncio.Future[tuple[Facts, Sequence[torch.Tensor]]]
    answer = asyncio.get_running_loop().create_future()

    def heard(sender: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        is_it = sender == trainer and isinstance(message, Facts) and message.number == number
        if is_it and not answer.done():
            assert isinstance(message, Facts)
            answer.set_result((message, tensors))

    links = Links(
        network.carriers(config.links.link),
        network.door(config),
        config.links.max_message_bytes,
        on_message=heard,
        on_lost=lambda peer, reason: None,  # it is asked again
        on_send_failed=lambda peer, message: None,
        reach=network.reach,
        me=network.me,
    )
    await links.start()
    try:
        links.know(trainer, {"libp2p": record.addresses, "direct": record.direct})
        async with asyncio.timeout(PATIENCE_S):
            while not answer.done():
                links.send(trainer, GetFacts(number))
                await asyncio.wait([answer], timeout=AGAIN_S)
    except TimeoutError:
        why = links.why_not_understood(trainer)
        raise RunError(why or _why_silent(line, config.run.access == "invited")) from None
    finally:
        await links.close()
    facts, tensors = answer.result()
    if not facts.affordable:
        raise RunError(f"the trainer of {whose} has been asked too often: try again in a minute")
    if facts.idle:
        return Told(line.run, facts.version, facts.idle, facts.standby_share, None)
    data = b"".join(tensor.numpy().tobytes() for tensor in tensors)
    swarm = read_facts(data, config.num_stages)
    return Told(line.run, facts.version, "", facts.standby_share, swarm)


def _why_silent(line: JoinLine, is_closed: bool) -> str:
    if is_closed and line.invite is None:
        return (
            f"run {line.run} answers those alone who are invited: pass the join line that "
            "`swarmrt train` or `swarmrt invite` prints, with its invitation"
        )
    return (
        f"the trainer of run {line.run} has not answered in {PATIENCE_S:.0f} s: it is gone, cannot "
        "be reached from here (`swarmrt doctor` says more), or does not know this invitation"
    )
