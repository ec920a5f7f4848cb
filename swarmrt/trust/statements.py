"""The statements that are signed: each kind about a run, as it stands in a token.

    Invitation   by the owner: whoever holds its secret may bring in so many peers
    Pass         by an invitation's secret: this peer is brought in by it
    Membership   by the owner: this peer takes part, in these stages
    Helm         by the owner: this peer is the run's trainer
    Published    by the owner: the run's record in the directory
    Delegation   by the owner: this other key signs for the owner

"By the owner" means by the owner's key, or by one that a Delegation names. Each ends at a time of
its own; the names of fields are short where PASETO registers them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

MAX_STAGES = 1024

Key = Annotated[str, msgspec.Meta(min_length=43, max_length=43)]  # 32 bytes in base64url
RunText = Annotated[str, msgspec.Meta(max_length=96)]  # NAME@FINGERPRINT
PeerText = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Note = Annotated[str, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Address = Annotated[str, msgspec.Meta(max_length=192)]  # with a relay's id in it, and a peer's
Stage = Annotated[int, msgspec.Meta(ge=0, lt=MAX_STAGES)]
Stages = Annotated[tuple[Stage, ...], msgspec.Meta(max_length=MAX_STAGES)]


Age = tuple[int, int]
"""When a run was begun, in seconds since 1970, and its trainer's epoch.

A run that is begun anew in another folder may have the name and owner of an earlier one, and begins
with the first epoch again.
"""


class Statement(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """The base of all statements."""

    run: RunText
    exp: datetime

    @property
    def expires_at(self) -> float:
        """The end of it, in seconds since 1970."""
        return self.exp.timestamp()


class Invitation(Statement, frozen=True, kw_only=True, tag="invitation"):
    """A right to bring peers in. Its secret is no part of it: only a pass can prove it."""

    jti: Name
    key: Key
    uses: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    stages: Stages = ()  # that may be served; all when empty
    note: Note = ""  # for the owner's eyes: whom it is for


class Pass(Statement, frozen=True, kw_only=True, tag="pass"):
    """A peer is brought in by the invitation that signs this."""

    peer: PeerText


class Membership(Statement, frozen=True, kw_only=True, tag="membership"):
    """A peer takes part in the run. Only that peer can use it."""

    peer: PeerText
    stages: Stages = ()  # that it may serve; none for a directory node
    invitation: str = ""  # that brought it in


class Helm(Statement, frozen=True, kw_only=True, tag="helm"):
    """A peer is the run's trainer."""

    peer: PeerText


class Published(Statement, frozen=True, kw_only=True, tag="published"):
    """The run's record in the directory."""

    trainer: PeerText
    born: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = (
        0  # seconds since 1970: when it was begun
    )
    epoch: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    config: dict[str, Any]
    addresses: Annotated[tuple[Address, ...], msgspec.Meta(max_length=32)] = ()
    direct: Annotated[tuple[Address, ...], msgspec.Meta(max_length=8)] = ()

    @property
    def age(self) -> Age:
        """The age of a record as a pair. Of two records the one whose age is higher is newer."""
        return (self.born, self.epoch)


class Delegation(Statement, frozen=True, kw_only=True, tag="delegation"):
    """The owner's word that another key signs for it until then."""

    key: Key


def moment(seconds: float) -> datetime:
    """Return the time that is so many whole seconds after 1970."""
    return datetime.fromtimestamp(int(seconds), UTC)
