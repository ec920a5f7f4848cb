"""The table of who may say what, which links consult before they take a message.

A link has proved who is at its other end, and that peer's membership which stages it may serve. The
seats that a message goes between have to be of those.
What a message says may still be wrong; that is for the cores to find out.
"""

from __future__ import annotations

from enum import Enum

from swarmrt.ids import NO_SEAT, Seats
from swarmrt.messages import (
    ALL_MESSAGES,
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Backward,
    Barred,
    Beacon,
    Busy,
    Claim,
    DialBack,
    DialedBack,
    Drain,
    Ending,
    Evaluated,
    Facts,
    Finish,
    Forward,
    GetFacts,
    GetFrame,
    GetState,
    GiveUp,
    Granted,
    Hail,
    Knock,
    Leaving,
    LeftOut,
    Message,
    NoFrame,
    NoState,
    NotInvited,
    Offer,
    Part,
    Prepare,
    Prepared,
    Probe,
    Probed,
    Ready,
    Recover,
    Refused,
    Released,
    Renewed,
    SayEvery,
    Stale,
    Standing,
    StateChunk,
    Take,
    Unable,
    Update,
    Updated,
    Welcome,
)


class Sender(Enum):
    """The role that the sender of a message has to its receiver. It may have several at once."""

    STRANGER = "shows nothing"
    INVITED = "shows an invitation, or comes into a run that is open to all"
    MEMBER = "shows a membership"
    BEFORE = "a seat of a member at the stage before the receiver's"
    SAME = "a seat of a member at the receiver's stage"
    AFTER = "a seat of a member at the stage after the receiver's"
    FIRST = "a seat of a member at the first stage"
    LAST = "a seat of a member at the last stage"
    TRAINER = "the trainer, by the owner's word"


_NEIGHBOURS = {Sender.BEFORE, Sender.AFTER}
_KNOWN = {Sender.INVITED, Sender.MEMBER, Sender.TRAINER}
_ANYBODY = {Sender.STRANGER, *_KNOWN}  # what proves itself, from whoever was away for too long

TO_PEER: dict[type[Message], set[Sender]] = {
    Hail: {Sender.TRAINER},
    Admit: {Sender.TRAINER},
    Granted: {Sender.TRAINER},
    Recover: {Sender.TRAINER},
    Standing: {Sender.TRAINER},
    Prepare: {Sender.TRAINER},
    Update: {Sender.TRAINER},
    Apply: {Sender.TRAINER},
    Drain: {Sender.TRAINER},
    Finish: {Sender.TRAINER},
    LeftOut: {Sender.TRAINER},
    SayEvery: {Sender.TRAINER},
    Welcome: {Sender.TRAINER},
    NotInvited: {Sender.TRAINER},
    Barred: {Sender.TRAINER},
    Take: {Sender.TRAINER},
    GiveUp: {Sender.TRAINER},
    Facts: {Sender.TRAINER},
    Forward: {Sender.TRAINER, Sender.BEFORE},
    Accepted: {Sender.AFTER},
    Busy: {Sender.AFTER},
    Stale: {Sender.TRAINER, Sender.AFTER},
    Backward: {Sender.AFTER},
    GetFrame: _NEIGHBOURS,
    NoFrame: _NEIGHBOURS,
    Part: {Sender.SAME},
    GetState: {Sender.TRAINER, Sender.SAME},
    StateChunk: {Sender.TRAINER, Sender.SAME},
    NoState: {Sender.TRAINER, Sender.SAME},
    Probe: _KNOWN,
    Probed: _KNOWN,
    DialBack: _KNOWN,
    DialedBack: _KNOWN,
    Renewed: _ANYBODY,
}
"""What a peer takes, and from whom. Whatever is not here it takes from nobody."""

TO_TRAINER: dict[type[Message], set[Sender]] = {
    Beacon: {Sender.MEMBER},
    Ready: {Sender.MEMBER},
    Accepted: {Sender.FIRST},
    Busy: {Sender.FIRST},
    Stale: {Sender.FIRST},
    Claim: {Sender.LAST},
    Evaluated: {Sender.LAST},
    Accumulated: {Sender.MEMBER},
    Released: {Sender.MEMBER},
    Prepared: {Sender.MEMBER},
    Refused: {Sender.MEMBER},
    Updated: {Sender.MEMBER},
    Applied: {Sender.MEMBER},
    Leaving: {Sender.MEMBER},
    Ending: {Sender.MEMBER},
    Offer: {Sender.MEMBER},
    Unable: {Sender.MEMBER, Sender.INVITED},  # it may end before it knocks
    GetState: {Sender.MEMBER},
    StateChunk: {Sender.MEMBER},
    NoState: {Sender.MEMBER},
    Probe: _KNOWN,
    Probed: _KNOWN,
    DialBack: _KNOWN,
    DialedBack: _KNOWN,
    GetFacts: _KNOWN,
    Knock: _ANYBODY,
    Renewed: _ANYBODY,
}
"""What the trainer takes, and from whom."""

OF_PROCESSES: frozenset[type[Message]] = frozenset(
    {
        Knock,
        Welcome,
        NotInvited,
        Barred,
        Renewed,
        Probe,
        Probed,
        DialBack,
        DialedBack,
        Offer,
        Take,
        GiveUp,
        GetFacts,
        Facts,
    }  # fmt: skip
)
"""What a process says to another one, and no seat says or is told."""

_KINDS = set(ALL_MESSAGES)
assert _KINDS == set(TO_PEER) | set(TO_TRAINER), "a message that nobody takes"


def senders(seats: Seats, num_stages: int | None) -> frozenset[Sender]:
    """Return what a member is that speaks from one of its seats, or from none, to one of the
    receiver's, or to the trainer.

    Where the number of stages is not known, nobody is FIRST or LAST.
    """
    of, to = seats
    found = {Sender.MEMBER}
    if NO_SEAT not in seats:
        places = {Sender.BEFORE: to - 1, Sender.SAME: to, Sender.AFTER: to + 1}
        found |= {sender for sender, place in places.items() if place == of}
    if num_stages is not None and of != NO_SEAT:
        ends = {Sender.FIRST: 0, Sender.LAST: num_stages - 1}
        found |= {sender for sender, place in ends.items() if place == of}
    return frozenset(found)
