"""Checking statements, offline: all that is needed is the run's id, which has its owner's
fingerprint.

Rules:
- A statement is of a run when its signature leads to the key that the run's id names.
- One that has ended by more than the slack of clocks counts for nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from swarmrt.errors import AccessError
from swarmrt.ids import PeerId, RunId
from swarmrt.trust.keys import fingerprint, public_key_of
from swarmrt.trust.paseto import footer_of, from_text, verify
from swarmrt.trust.statements import (
    Delegation,
    Helm,
    Invitation,
    Membership,
    Pass,
    Published,
    Statement,
)

CLOCK_SLACK_S = 60.0
REMEMBERED = 4096  # tokens whose signatures were right

S = TypeVar("S", bound=Statement)
_STATEMENTS = msgspec.json.Decoder(Invitation | Pass | Membership | Helm | Published | Delegation)


class Authority(msgspec.Struct, frozen=True, omit_defaults=True):
    """The footer of a statement in an owner's name: by which keys it can be checked."""

    owner: str  # public key
    delegation: str = ""  # to the key that has signed, when it is not the owner's


def authority_of(token: str) -> Authority:
    """Return a token's footer, which nobody has vouched for yet. Raises AccessError."""
    try:
        return msgspec.json.decode(footer_of(token), type=Authority)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AccessError("a statement does not say who has made it") from None


def check(token: str, run: RunId | None, *kinds: type[S]) -> S:
    """Return a statement of these kinds made in the name of the run's owner, whenever it ends.

    Without a run, of whatever run it says. Raises AccessError.
    """
    authority = authority_of(token)
    owner = public_key_of(from_text(authority.owner))
    key = owner
    if authority.delegation:
        given = _decode(verify(authority.delegation, owner), (Delegation,))
        key = public_key_of(from_text(given.key))
    statement = _decode(verify(token, key), kinds)
    if authority.delegation:
        _check_delegated(statement, given)
    if run is not None and statement.run != str(run):
        raise AccessError(f"a statement is about run {statement.run}, not {run}")
    if statement.run.partition("@")[2] != fingerprint(owner):
        raise AccessError(f"a statement about run {statement.run} is not by its owner")
    return statement


def _check_delegated(statement: Statement, given: Delegation) -> None:
    name, _, owner = given.run.partition("@")
    if isinstance(statement, Delegation):
        raise AccessError("a delegated key cannot delegate further")
    if name != "*" and statement.run != given.run:
        raise AccessError(f"a delegation for run {given.run} was used for {statement.run}")
    if statement.exp > given.exp:
        raise AccessError("a statement outlives the delegation that it rests on")


def _decode(message: bytes, kinds: tuple[type[S], ...]) -> S:
    try:
        statement = _STATEMENTS.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AccessError(f"not a statement: {error}") from None
    if not isinstance(statement, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise AccessError(f"a statement of kind {type(statement).__name__}, not {wanted}")
    return statement


class Credential(msgspec.Struct, frozen=True):
    """The role that a peer has shown to have."""

    peer: PeerId
    is_trainer: bool = False
    stages: tuple[int, ...] = ()
    until: float = 0.0  # seconds since 1970
    invitation: Invitation | None = None  # that brought it in, if it has shown a pass


class Checker:
    """Checks what others show for one run, and remembers whose signatures were right."""

    def __init__(self, run: RunId) -> None:
        self.run = run
        self._known: OrderedDict[str, Credential] = OrderedDict()

    def credential(self, token: str, peer: PeerId, now: float, late_s: float = 0.0) -> Credential:
        """Return what a token says that this peer is. One that has ended may be `late_s` late.

        Raises AccessError.
        """
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._read(token)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if found.peer != peer:
            raise AccessError(f"a statement about {found.peer} was shown by {peer}")
        if found.until + CLOCK_SLACK_S + late_s < now:
            raise AccessError(f"a statement of run {self.run} has ended; is the clock right?")
        return found

    def published(self, token: str, peer: PeerId) -> Published:
        """Return the run's record that its trainer, this peer, has stored. Raises AccessError."""
        record = check(token, self.run, Published)
        if record.trainer != peer:
            raise AccessError(f"the record of trainer {record.trainer} was stored by {peer}")
        return record

    def _read(self, token: str) -> Credential:
        if footer_of(token).startswith(b"v4.public."):
            return self._read_pass(token)
        statement = check(token, self.run, Membership, Helm)
        if isinstance(statement, Helm):
            return Credential(PeerId(statement.peer), True, (), statement.expires_at)
        assert isinstance(statement, Membership)
        peer, until = PeerId(statement.peer), statement.expires_at
        return Credential(peer, False, statement.stages, until)

    def _read_pass(self, token: str) -> Credential:
        footer = footer_of(token).decode("ascii", errors="replace")  # a token is ASCII
        invitation = check(footer, self.run, Invitation)
        key: Ed25519PublicKey = public_key_of(from_text(invitation.key))
        statement = _decode(verify(token, key), (Pass,))
        if statement.run != str(self.run):
            raise AccessError(f"a pass is for run {statement.run}, not {self.run}")
        until = min(statement.expires_at, invitation.expires_at)
        return Credential(PeerId(statement.peer), False, (), until, invitation)
