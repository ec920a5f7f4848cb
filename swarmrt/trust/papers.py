"""The papers of a process: an invitation, a membership, or the owner's own key."""

from __future__ import annotations

from typing import Protocol

from swarmrt.errors import AccessError
from swarmrt.ids import PeerId, RunId
from swarmrt.trust.checking import Checker, check
from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.signing import Signer
from swarmrt.trust.statements import Invitation

SHOWN_S = 3600.0  # how long a statement holds that an owner's process makes for itself
MARGIN_S = 300.0  # before it ends, another one is made


class Papers(Protocol):
    """The papers that a process of a run shows to others."""

    run: RunId

    def show(self, peer: PeerId, now: float) -> str:
        """Return the token that this process, whose name is `peer`, shows at this time, in seconds
        since 1970; empty for none."""


class OwnersPapers:
    """A process that has the owner's key: the trainer, or a directory node of the run."""

    def __init__(self, signer: Signer, *, is_trainer: bool) -> None:
        self.run, self.signer = signer.run, signer
        self._is_trainer = is_trainer
        self._shown, self._until = "", 0.0

    def show(self, peer: PeerId, now: float) -> str:
        if now > self._until - MARGIN_S:
            self._until = now + SHOWN_S
            make = self.signer.helm if self._is_trainer else self._as_node
            self._shown = make(peer, self._until)
        return self._shown

    def _as_node(self, peer: PeerId, until: float) -> str:
        return self.signer.membership(peer, (), until)


class GuestsPapers:
    """A process that has joined by a line: an invitation at first, then a membership."""

    def __init__(self, line: JoinLine, kept: str = "") -> None:
        """`kept` is a membership from before. It may be of a run that was begun anew since then, so
        it is shown only where the line has no invitation that is still good."""
        self.run, self._invite, self._kept = line.run, line.invite, kept
        self.membership = ""
        self._checker = Checker(line.run)
        self._pass, self._pass_until = "", 0.0
        self._good_until = _end_of(line)

    def show(self, peer: PeerId, now: float) -> str:
        if self.is_member(peer, now):
            return self.membership
        if self._invite is None or now > self._good_until:
            return self.membership or self._kept
        if now > self._pass_until - MARGIN_S:
            self._pass = self._invite.pass_for(self.run, peer, now)
            self._pass_until = now + SHOWN_S
        return self._pass

    def is_member(self, peer: PeerId, now: float) -> bool:
        """Return whether the membership that is held is one of this peer and has not ended."""
        return self.until(peer, now) > now

    def until(self, peer: PeerId, now: float) -> float:
        """Return when the membership ends, in seconds since 1970; 0 without one."""
        if not self.membership:
            return 0.0
        try:
            return self._checker.credential(self.membership, peer, now).until
        except AccessError:
            return 0.0


def _end_of(line: JoinLine) -> float:
    """Return when the line's invitation ends, in seconds since 1970; 0 when it has none."""
    if line.invite is None:
        return 0.0
    try:
        return check(line.invite.token, line.run, Invitation).expires_at
    except AccessError:
        return 0.0  # whoever it is shown to says what is wrong with it
