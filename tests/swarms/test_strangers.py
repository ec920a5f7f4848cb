"""Strangers at a swarm of real processes: whatever they say, the run goes on as without them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from swarmrt import lab
from swarmrt.ids import NO_SEAT, MicrobatchId, PeerId, Work, peer_of, seat_of
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Backward,
    Barred,
    Beacon,
    Claim,
    Drain,
    Evaluated,
    Finish,
    Forward,
    GetFrame,
    GetState,
    Granted,
    Hail,
    Knock,
    Leaving,
    Message,
    NotInvited,
    Part,
    Prepare,
    Prepared,
    Probe,
    Ready,
    Recover,
    Refused,
    Released,
    Renewed,
    Standing,
    StateChunk,
    Welcome,
)
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.carriers.libp2p import Libp2pCarrier
from swarmrt.runtime.directory.network import open_network
from swarmrt.runtime.links.links import Links
from tests.runtime.links.test_links import run
from tests.swarms.test_end_to_end import check_logs, difference_to_reference
from tests.swarms.test_end_to_end import exact as exact

pytestmark = pytest.mark.swarm

STAGES = 3
EPOCHS = (1, 2, 10**9)
MADE_UP = 777_777_777  # of a microbatch
TOKENS = torch.zeros((2, 32), dtype=torch.int64)
NOISE = torch.full((2, 32, 48), 1e4, dtype=torch.float64)


class Showing(UnguardedDoor):
    """The door of somebody dishonest: it takes everything, and shows what it likes."""

    def __init__(self, run: str, token: str) -> None:
        super().__init__(run)
        self._token = token

    def shown(self) -> str:
        return self._token


def seats_of(me: PeerId) -> tuple[PeerId, ...]:
    return tuple(seat_of(me, stage) for stage in range(STAGES))


class Stranger:
    """A process with a key of its own that knows a run's id and the addresses of its processes."""

    def __init__(self, swarm: lab.LocalSwarm, links: Links) -> None:
        self._links = links
        self.trainer = swarm.trainer.peer_id
        self.peers = [peer.seat for peer in swarm.peers()]
        for part in (swarm.trainer, *swarm.peers()):
            links.know(part.peer_id, {"libp2p": [part.address]})

    async def say(self, to: PeerId, message: Message, *tensors: torch.Tensor) -> None:
        """Say it as if from each seat that might, to a seat and to its process."""
        for name in {to, peer_of(to)}:
            for stage in (NO_SEAT, *range(STAGES)):
                self._links.send(name, message, tensors, of=stage)
        await asyncio.sleep(0)

    async def say_everything(self, me: PeerId, step: int) -> None:
        """All that ever did harm, and all other kinds of messages, for the steps around this."""
        for version in (step, step + 1):
            for epoch in EPOCHS:
                await self._lie_to_the_trainer(me, epoch, version)
                for peer in self.peers:
                    await self._lie_to_a_peer(me, peer, epoch, version)

    async def _lie_to_the_trainer(self, me: PeerId, epoch: int, version: int) -> None:
        mb, to = MicrobatchId(version, 0), self.trainer
        work, held_out = Work(mb, 0), Work(MicrobatchId(version, 0, True), 0)
        for stage in range(STAGES):
            holds = (version + 9, "wrong", 10**6, 10**6, 0.0)
            await self.say(to, Beacon(epoch, 1, stage, "serving", *holds, 0, 10**6, 1e-9))
        for message in (
            Ready(epoch, 1, version, "another digest"),
            Claim(work, epoch, seats_of(me), -1e9, -32),
            Evaluated(held_out, epoch, 0.001, 1),
            Accumulated(epoch, 1, mb, 0),
            Released(epoch, 1, mb, "so that others do it"),
            Prepared(epoch, version, 1, "digest", math.nan),
            Refused(epoch, version, 1, "of its record", self.peers[0]),
            Applied(epoch, version + 1, "digest"),
            Leaving(epoch, 1, True),
            Accepted(work, 1e-9, math.nan),
            GetState(0, version, 0, 1 << 20),
            Renewed("v4.public.AAAA"),
        ):
            await self.say(to, message)

    async def _lie_to_a_peer(self, me: PeerId, to: PeerId, epoch: int, version: int) -> None:
        path = seats_of(me)
        for mb in (
            MicrobatchId(version, 0),
            MicrobatchId(version, MADE_UP),
            MicrobatchId(version, -5),
        ):
            await self.say(to, Forward(Work(mb, 0), epoch, ()), TOKENS, TOKENS)
            await self.say(to, Forward(Work(mb, 0), epoch, (me,)), NOISE, TOKENS - 1)
            await self.say(to, Backward(epoch, mb, path, (0, 1, 2)), NOISE)
            await self.say(to, Backward(epoch, mb, (), ()), NOISE)
            await self.say(to, GetFrame(epoch, mb, "output"))
            await self.say(to, Granted(epoch, mb, path, (0, 1, 2)))
            await self.say(to, Recover(epoch, mb, path, (0, 1, 2)), TOKENS, TOKENS)
        for message in (
            Hail(epoch),
            Admit(epoch, 9, version, "", -1, 0.0, (me,)),
            Standing(epoch, 1, me, True),
            Standing(epoch, 1, to, False),
            Prepare(epoch, version, 10**6, ((me, (0,)),), (), 1),
            Apply(epoch, version, 10**6, 0.0, False),
            GetState(0, version, 0, 1 << 20),
            GetState(1, version, 0, 1 << 20),
            Drain(epoch),
            Barred(tuple(self.peers)),
            Welcome("v4.public.AAAA", "00" * 32),
            NotInvited("go away"),
            Probe(1, 1 << 20),
            Knock((1,)),
            Finish("it is over"),
        ):
            await self.say(to, message)
        await self.say(to, Part(epoch, version, 1, 0, True), torch.ones(1000))


async def visit(
    swarm: lab.LocalSwarm, token: Callable[[PeerId], str], until_step: int
) -> Counter[str]:
    """Say everything again and again until the run has come so far. Return what was answered."""
    answers: Counter[str] = Counter()

    def heard(_: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        answers[type(message).__name__] += 1

    async with open_network([]) as network:
        links = Links(
            [Libp2pCarrier(network.daemon)],
            Showing(str(swarm.join_line.run), token(network.me)),
            64 << 20,
            on_message=heard,
            on_lost=lambda *_: None,
            on_send_failed=lambda *_: None,
        )
        await links.start()
        stranger, rounds = Stranger(swarm, links), 0
        try:
            while swarm.version < until_step:
                await stranger.say_everything(network.me, swarm.version)
                rounds += 1
                await asyncio.sleep(0.2)
        finally:
            await links.close()
    assert rounds > 3
    return answers


GIVEN = {Forward, StateChunk, Backward, Welcome, Accepted}  # which nobody gets who is no member
SHOWS = ("nothing", "a stolen membership", "an invitation that is not its own", "a pass")


@pytest.mark.parametrize(
    "shows",
    [s if s in ("nothing", "a pass") else pytest.param(s, marks=pytest.mark.slow) for s in SHOWS],
)
def test_stranger_changes_nothing_and_learns_nothing(
    exact: Path, tmp_path: Path, shows: str
) -> None:
    """What it says is dropped by everybody; the run ends with the weights of one process."""
    run_dir = tmp_path / "run"
    # long steps, so that there is time for everything to be said in the midst of many of them
    overrides = {"run.steps": 20, "batch.microbatches": 40}
    with lab.LocalSwarm(exact, [2, 1, 1], run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        swarm.wait(step=1)
        line, member = swarm.join_line, swarm.peers(0)[0].peer_id
        invite = line.invite
        assert invite is not None

        def token(me: PeerId) -> str:
            return {
                "nothing": "",
                "a stolen membership": swarm.papers.membership_of(member),
                "an invitation that is not its own": invite.token,
                "a pass": invite.pass_for(line.run, me, time.time()),
            }[shows]

        answers: Counter[str] = Counter()

        async def story() -> None:
            answers.update(await visit(swarm, token, until_step=18))

        run(story())
        swarm.finish()
    assert not {kind.__name__ for kind in GIVEN} & set(answers), answers
    assert ("Probed" in answers) == (shows == "a pass")
    audit = swarm.audit()
    assert audit.passed and audit.steps == 20, audit.violations
    check_logs(run_dir)
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    assert difference_to_reference(run_dir, exact, tmp_path, *settings, steps=20) < 1e-9
    logs = [path.read_text() for path in run_dir.rglob("events.jsonl")]
    assert len(logs) == 5 and not any("it is over" in log or str(MADE_UP) in log for log in logs)
