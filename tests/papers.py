"""Owners and guests for tests of links and of the directory."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.papers import GuestsPapers, OwnersPapers
from swarmrt.trust.signing import Signer


class Owner:
    """An owner of a run, and what others get from it."""

    def __init__(self, name: str = "test") -> None:
        self.signer = Signer(name, Ed25519PrivateKey.generate())
        self.run = self.signer.run
        self.invite = self.signer.invite(9, time.time() + 600)

    def node(self) -> OwnersPapers:
        """Return the papers of a directory node of the run."""
        return OwnersPapers(self.signer, is_trainer=False)

    def guest(self) -> GuestsPapers:
        """Return the papers of somebody who was invited."""
        return GuestsPapers(JoinLine(self.run, (), self.invite))
