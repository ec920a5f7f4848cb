"""The access book of a run: who was let in by which invitation, and who was turned out again.

It is pure: it answers who may come in, and the entries that its owner is to write down. They are
lines of `access.jsonl`, which `swarmrt invite` and `swarmrt revoke` add to as well, while the run
goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from swarmrt.ids import PeerId
from swarmrt.trust.checking import Credential
from swarmrt.trust.statements import Stages

MAX_MEMBERS = 100_000  # that are written down; into an open run more may come
MAX_IDENTITIES = 4096  # that one invitation has brought in, however many it allows


class Entry(msgspec.Struct, frozen=True, tag_field="what", omit_defaults=True):
    """The base of the book's lines."""

    at: float  # seconds since 1970


class Invited(Entry, frozen=True, tag="invited"):
    """An invitation was made."""

    invitation: str
    note: str
    uses: int
    until: float
    stages: Stages = ()


class Joined(Entry, frozen=True, tag="joined"):
    """A peer was let in."""

    peer: PeerId
    invitation: str  # empty in a run with open access
    note: str = ""
    stages: Stages = ()  # that it may serve


class Revoked(Entry, frozen=True, tag="revoked"):
    """A peer, or an invitation with all that came by it, was turned out."""

    who: str  # a peer, an invitation, or a note
    why: str = ""


AnyEntry = Invited | Joined | Revoked


@dataclass
class Verdict:
    """The answer to a peer that knocks: if it may come in, and as what."""

    stages: tuple[int, ...] = ()
    invitation: str = ""
    refusal: str = ""  # for people; empty when it may
    entries: list[AnyEntry] = field(default_factory=list)  # to be written down


class AccessBook:
    """The members and invitations of a run, as far as they are known."""

    def __init__(self, access: Literal["invited", "open"], num_stages: int) -> None:
        self._access, self._num_stages = access, num_stages
        self.members: dict[PeerId, Joined] = {}
        self._brought: dict[str, set[PeerId]] = {}  # by each invitation
        self._notes: dict[str, set[str]] = {}  # invitations by their notes
        self.revoked: dict[str, str] = {}  # peers and invitations → why

    def read(self, entries: Iterable[AnyEntry]) -> list[PeerId]:
        """Take in lines of the book. Returns the members that they have turned out."""
        out: list[PeerId] = []
        for entry in entries:
            match entry:
                case Invited():
                    self._notes.setdefault(entry.note, set()).add(entry.invitation)
                case Joined():
                    self._take_in(entry)
                case Revoked():
                    out += self._turn_out(entry)
        return out

    def knows(self, who: str) -> bool:
        """Return whether that is a member, or an invitation or note that is known."""
        return who in self.members or who in self._brought or who in self._invitations()

    def _invitations(self) -> set[str]:
        return {*self._notes, *(name for names in self._notes.values() for name in names)}

    def ask(self, credential: Credential, stages: tuple[int, ...], now: float) -> Verdict:
        """Say whether a peer may come in and serve these stages.

        Who was let in before and was not turned out is let in again, by its proven name alone.
        """
        peer = credential.peer
        if not stages or any(not 0 <= stage < self._num_stages for stage in stages):
            return Verdict(
                refusal=f"the run has stages 0 to {self._num_stages - 1}; there is no such stage"
            )
        if peer in self.revoked:
            return Verdict(refusal=f"the run's owner has turned it out: {self.revoked[peer]}")
        known = self.members.get(peer)
        if known is not None and set(stages) <= set(known.stages):
            return Verdict(known.stages, known.invitation)
        if self._access == "open":
            return self._let_in(peer, stages, "", "", now)
        return self._by_invitation(credential, stages, now)

    def revoke(self, who: str, why: str, now: float) -> tuple[Revoked, list[PeerId]]:
        """Turn out a peer, an invitation or a note. Returns the line, and the members it hits."""
        entry = Revoked(now, who, why)
        return entry, self._turn_out(entry)

    def _by_invitation(
        self, credential: Credential, stages: tuple[int, ...], now: float
    ) -> Verdict:
        invitation = credential.invitation
        if invitation is None:
            return Verdict(
                refusal="nobody comes into this run without an invitation; ask its owner for a "
                "join line (`swarmrt invite` prints one)"
            )
        name = invitation.jti
        if name in self.revoked or invitation.note in self.revoked:
            return Verdict(refusal="the run's owner has taken this invitation back")
        brought = self._brought.get(name, set())
        if credential.peer not in brought and len(brought) >= min(invitation.uses, MAX_IDENTITIES):
            return Verdict(
                refusal=f"this invitation was for {invitation.uses} peers, and as many have come; "
                "ask the run's owner for another one"
            )
        if invitation.stages and not set(stages) <= set(invitation.stages):
            allowed = ", ".join(map(str, invitation.stages))
            return Verdict(refusal=f"this invitation is for stage {allowed} only")
        return self._let_in(credential.peer, stages, name, invitation.note, now)

    def _let_in(
        self, peer: PeerId, stages: tuple[int, ...], invitation: str, note: str, now: float
    ) -> Verdict:
        if peer not in self.members and len(self.members) >= MAX_MEMBERS:
            if self._access == "open":
                return Verdict(tuple(sorted(set(stages))))
            return Verdict(refusal="the run has as many members as it can remember")
        earlier = self.members[peer].stages if peer in self.members else ()
        entry = Joined(now, peer, invitation, note, tuple(sorted({*earlier, *stages})))
        self._take_in(entry)
        return Verdict(entry.stages, invitation, entries=[entry])

    def _take_in(self, entry: Joined) -> None:
        self.members[entry.peer] = entry
        self._brought.setdefault(entry.invitation, set()).add(entry.peer)
        self._notes.setdefault(entry.note, set()).add(entry.invitation)

    def _turn_out(self, entry: Revoked) -> list[PeerId]:
        why = entry.why or "revoked"
        self.revoked[entry.who] = why
        invitations = {entry.who, *(self._notes.get(entry.who, ()) if entry.who else ())}
        for invitation in invitations & set(self._brought):
            self.revoked[invitation] = why
        hit = [
            peer
            for peer, member in self.members.items()
            if peer == entry.who or (member.invitation and member.invitation in invitations)
        ]
        if self._access == "open" and not hit and len(self.members) >= MAX_MEMBERS:
            hit = [PeerId(entry.who)]  # it may have come when no more were written down
        for peer in hit:
            self.revoked[peer] = why
            self.members.pop(peer, None)
        return hit
