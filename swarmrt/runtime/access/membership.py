"""A peer's standing with its run's trainer: where that is, and what it grants or takes away."""

from __future__ import annotations

import logging
from collections.abc import Callable

from swarmrt.errors import DirectoryError, UsageError
from swarmrt.ids import PeerId
from swarmrt.messages import NotInvited, Welcome
from swarmrt.runtime.access.admission import Admission
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.access.kept_runs import KeptRun
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.links.links import Links
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.membership")


class Membership:
    """A membership of one run, from the first knock on. `enter` first, `keep` beside the rest."""

    def __init__(
        self,
        run: Published,
        stages: tuple[int, ...],
        network: Network,
        links: Links,
        door: GuardedDoor,
        kept: KeptRun | None,
        on_member: Callable[[Welcome], None],
    ) -> None:
        """`on_member` is told of every membership, and `kept` remembers the newest for later."""
        self._network, self._links, self._door = network, links, door
        self._kept, self._on_member = kept, on_member
        self.trainer = PeerId(run.trainer)
        self._born, self._epoch = run.age
        assert isinstance(network.papers, GuestsPapers)
        self.papers = network.papers
        self._know_trainer(run)
        self._admission = Admission(
            self.papers, network.me, self.trainer, stages, links, self._is_member
        )

    @property
    def epoch(self) -> int:
        """Return the newest epoch of the run's trainer that is known."""
        return self._epoch

    async def enter(self) -> None:
        """Wait until the trainer has let this peer in. Raises AccessError when it does not,
        RunError when the two do not understand each other."""
        await self._admission.enter(self._find_trainer)

    async def keep(self) -> None:
        """Renew the membership before it ends, again and again."""
        await self._admission.keep(self._find_trainer)

    def answered(self, message: Welcome | NotInvited) -> None:
        """Take the trainer's answer. Raises AccessError when it ends this peer's membership."""
        self._admission.answered(message)

    async def look_again(self) -> None:
        """Look where the trainer is: it cannot be reached."""
        await self._find_trainer()

    def hailed(self, epoch: int) -> bool:
        """Remember the trainer's epoch, so that no record of an earlier one is believed. Returns
        whether it is the newest: a word of an earlier one may come late."""
        if epoch > self._epoch:
            self._epoch = epoch
            self._remember(lambda kept: kept.keep_newest((self._born, epoch)))
        return epoch == self._epoch

    def bar(self, peers: tuple[PeerId, ...]) -> None:
        """Shut out the peers that the owner has turned out."""
        self._door.bar(peers)
        for peer in peers:
            self._links.drop(peer)

    def _is_member(self, welcome: Welcome) -> None:
        self._remember(lambda kept: kept.keep_membership(welcome.membership))
        self._on_member(welcome)

    def _remember(self, write: Callable[[KeptRun], None]) -> None:
        """Write it down for later, if the disk takes it: this run goes on without."""
        try:
            if self._kept is not None:
                write(self._kept)
        except UsageError as error:
            log.warning("%s", error)

    async def _find_trainer(self) -> None:
        """Look where the trainer is, in case that it has moved."""
        try:
            published = await self._network.directory.find_run(self.papers.run)
        except DirectoryError as error:
            log.warning("%s", error)
        else:
            if published is not None and published.trainer == self.trainer:
                self._know_trainer(published)

    def _know_trainer(self, run: Published) -> None:
        known = {"libp2p": run.addresses, "direct": run.direct}
        self._links.know(self.trainer, known)
