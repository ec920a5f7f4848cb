"""The host of a peer's seats: one membership of the run, and its trainer's words about that."""

from __future__ import annotations

import logging

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError
from swarmrt.ids import PeerId
from swarmrt.messages import Barred, Message, NotInvited, Welcome
from swarmrt.runtime.access.membership import Membership
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.peer.lending import Lending
from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.peer.serve_options import ServeOptions, Threads
from swarmrt.runtime.peer.steward import Steward
from swarmrt.runtime.process.host import Host
from swarmrt.runtime.process.shell import Shell, Tensors
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.vitals import VITALS
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.peer")


class PeerHost(Host):
    def __init__(
        self,
        config: RunConfig,
        network: Network,
        run: Published,
        threads: Threads,
        options: ServeOptions,
    ) -> None:
        folder = options.log_dir
        vitals = None if folder is None else folder / VITALS
        super().__init__(config, network, num_seats=len(options.stages), vitals=vitals)
        threads.torch.deliver_within(self.links.together)
        self.seats: list[Peer] = []
        self._welcome: Welcome | None = None  # the newest
        self.steward: Steward | None = None  # where the seats come and go
        self.membership = Membership(
            run,
            options.stages,
            network,
            self.links,
            self.around.door,
            options.kept,
            self._is_member,
        )

    def seat(self, peer: Peer) -> None:
        """Hold one more seat."""
        self.seats.append(peer)
        if self._welcome is not None:
            peer.is_member(self._welcome)
        self.add(peer)

    def is_led_by(self, steward: Steward) -> None:
        """Hold seats as a steward says."""
        self.steward = steward
        self.add(steward)

    def close_seat(self, stage: int, reason: str) -> None:
        """Ask the seat at a stage to leave."""
        for peer in self.seats:
            if peer.seat == stage:
                peer.ask_to_stop(reason)

    def has_stopped(self, shell: Shell) -> None:
        """Make room for other seats, where they come and go. Once the process leaves, what its
        seats hold is still needed (`serving`)."""
        if self.steward is None or not isinstance(shell, Peer):
            return
        if self.steward.is_leaving or self._tasks is None:
            self.steward.closed(shell.seat)
        else:
            self._tasks.create_task(self._give_up(shell, self.steward))

    async def _give_up(self, peer: Peer, steward: Steward) -> None:
        await self.let_go(peer)
        self.seats.remove(peer)
        steward.closed(peer.seat)

    async def serve(self, switch: StopSwitch, lending: Lending) -> str:
        """Serve until the cores of all seats have stopped; return the reason. Raises RunError when
        it is an error."""
        duties = [self.membership.keep(), lending.keep(self.seats)]
        return await self.live(switch, duties, self.membership.enter())

    def said(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case Welcome() | NotInvited():
                try:
                    self.membership.answered(message)
                except AccessError as error:  # it is no member, and nothing can make it one
                    self.crash(error)
            case Barred(peers):
                self.membership.bar(peers)
            case _ if self.steward is not None:
                self.steward.receive(sender, message, tensors)
            case _:
                log.debug("%s says %s to none of the seats", sender, type(message).__name__)

    def crash(self, error: Exception) -> None:
        """End this process with an error."""
        shells: list[Shell] = [*self.seats, *([self.steward] if self.steward is not None else [])]
        shells[0].process.crash(error)

    def _is_member(self, welcome: Welcome) -> None:
        self._welcome = welcome
        for peer in self.seats:
            peer.is_member(welcome)
