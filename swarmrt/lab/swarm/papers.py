"""The papers that processes of a swarm on one machine show each other: none is ever in a file."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from swarmrt.ids import PeerId
from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.paseto import to_text
from swarmrt.trust.signing import Signer

USES = 100_000
GOOD_S = 365 * 86400.0


class LocalPapers:
    """An owner key and an invitation that live as long as the launcher."""

    def __init__(self, run_name: str) -> None:
        self._signer = Signer(run_name, Ed25519PrivateKey.generate())
        self._invite = self._signer.invite(USES, time.time() + GOOD_S, note="launcher")

    def line(self, addresses: Sequence[str]) -> JoinLine:
        """Return a join line with these addresses."""
        return JoinLine(self._signer.run, tuple(addresses), self._invite)

    def of_guest(self, addresses: Sequence[str]) -> dict[str, str]:
        """Return what a peer or a directory node gets, which joins at these addresses."""
        return {"join_line": str(self.line(addresses))}

    def membership_of(self, peer: PeerId) -> str:
        """Return what the trainer would give a peer: for experiments in dishonesty."""
        return self._signer.membership(peer, (0, 1), time.time() + GOOD_S)

    def of_owner(self) -> dict[str, str]:
        """Return what the trainer gets."""
        return {"owner": to_text(self._signer.secret)}
