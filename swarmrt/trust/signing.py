"""Making statements: in the owner's name, by the owner's key or by one that it has delegated to."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from swarmrt.errors import AccessError
from swarmrt.ids import PeerId, RunId
from swarmrt.trust.checking import Authority, authority_of, check
from swarmrt.trust.keys import fingerprint, private_bytes, private_key_of, public_bytes
from swarmrt.trust.paseto import from_text, sign, to_text
from swarmrt.trust.statements import (
    Delegation,
    Helm,
    Invitation,
    Membership,
    Pass,
    Published,
    Statement,
    moment,
)

PASS_S = 3600.0  # how long one holds


class Signer:
    """The maker of statements about one run in its owner's name."""

    def __init__(self, name: str, key: Ed25519PrivateKey, delegation: str = "") -> None:
        """With a delegation the run is that of whoever gave it. Raises AccessError for one that
        is not for this key."""
        self._key = key
        self._good_until = math.inf
        if not delegation:
            self._authority = Authority(owner=to_text(public_bytes(key.public_key())))
            self.run = RunId(name, fingerprint(key.public_key()))
            return
        given, owner = _opened(delegation)
        if from_text(given.key) != public_bytes(key.public_key()):
            raise AccessError(
                "the delegation is for another key; `swarmrt owner show` prints that of this "
                "machine, for which the run's owner makes one"
            )
        self.run = RunId(name, given.run.partition("@")[2])
        if given.run not in (str(self.run), f"*@{self.run.owner}"):
            raise AccessError(f"the delegation is for run {given.run}, not {self.run}")
        self._authority = Authority(owner=owner, delegation=delegation)
        self._good_until = given.expires_at

    @property
    def secret(self) -> bytes:
        """The key itself: for deriving others, and for handing it to a process of its owner."""
        return private_bytes(self._key)

    def sign(self, statement: Statement) -> str:
        """Return the token of a statement in the owner's name.

        It ends with the delegation that it rests on, if that is sooner.
        """
        if statement.expires_at > self._good_until:
            statement = msgspec.structs.replace(statement, exp=moment(self._good_until))
        footer = msgspec.json.encode(self._authority)
        return sign(self._key, msgspec.json.encode(statement), footer)

    def membership(
        self, peer: PeerId, stages: Sequence[int], until: float, invitation: str = ""
    ) -> str:
        """Return the token that makes a peer a member until this time, in seconds since 1970."""
        return self.sign(
            Membership(
                run=str(self.run),
                exp=moment(until),
                peer=peer,
                stages=tuple(stages),
                invitation=invitation,
            )
        )

    def helm(self, peer: PeerId, until: float) -> str:
        """Return the token that makes a peer the run's trainer until this time."""
        return self.sign(Helm(run=str(self.run), exp=moment(until), peer=peer))

    def published(
        self,
        trainer: PeerId,
        epoch: int,
        config: dict[str, Any],
        addresses: Sequence[str],
        direct: Sequence[str],
        until: float,
        born: int = 0,
    ) -> str:
        """Return the run's record."""
        return self.sign(
            Published(
                run=str(self.run),
                exp=moment(until),
                trainer=trainer,
                born=born,
                epoch=epoch,
                config=config,
                addresses=tuple(addresses),
                direct=tuple(direct),
            )
        )

    def invite(self, uses: int, until: float, stages: Sequence[int] = (), note: str = "") -> Invite:
        """Return a new invitation with its secret."""
        secret = Ed25519PrivateKey.generate()
        token = self.sign(
            Invitation(
                run=str(self.run),
                exp=moment(until),
                jti=secrets.token_hex(4),
                key=to_text(public_bytes(secret.public_key())),
                uses=uses,
                stages=tuple(stages),
                note=note,
            )
        )
        return Invite(token, secret)

    def delegate(self, key: bytes, until: float) -> str:
        """Return the token that lets another key sign for the owner."""
        if self._authority.delegation:
            raise AccessError("a delegated key cannot delegate further; ask the run's owner")
        return self.sign(Delegation(run=str(self.run), exp=moment(until), key=to_text(key)))


class Invite:
    """An invitation and its secret: whoever holds it can bring peers in."""

    def __init__(self, token: str, secret: Ed25519PrivateKey) -> None:
        self.token, self._secret = token, secret

    def __str__(self) -> str:
        """Return what stands in a join line."""
        return f"{self.token}~{to_text(private_bytes(self._secret))}"

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read what stands in a join line. Raises AccessError."""
        token, tilde, secret = text.rpartition("~")
        if not tilde:
            raise AccessError("the invitation is cut off: its part after '~' is missing")
        return cls(token, private_key_of(from_text(secret)))

    def pass_for(self, run: RunId, peer: PeerId, now: float) -> str:
        """Return the token with which a peer shows that it was invited."""
        statement = Pass(run=str(run), exp=moment(now + PASS_S), peer=peer)
        return sign(self._secret, msgspec.json.encode(statement), self.token.encode())


def _opened(delegation: str) -> tuple[Delegation, str]:
    """Return a delegation and the public key of its giver, who has signed it."""
    authority = authority_of(delegation)
    return check(delegation, None, Delegation), authority.owner
