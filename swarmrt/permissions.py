"""The table of who may say what, which links consult before they take a message.

A link has proved who is at its other end, and that peer's membership which stages it may serve.
What a message says may still be wrong; that is for the cores to find out.
"""

from __future__ import annotations

from enum import Enum

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
    Finish,
    Forward,
    GetFrame,
    GetState,
    Granted,
    Hail,
    Knock,
    Leaving,
    LeftOut,
    Message,
    NoFrame,
    NoState,
    NotInvited,
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
    Stale,
    Standing,
    StateChunk,
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
    BEFORE = "a member that may serve the stage before the receiver's"
    SAME = "a member that may serve the receiver's stage"
    AFTER = "a member that may serve the stage after the receiver's"
    FIRST = "a member that may serve the first stage"
    LAST = "a member that may serve the last stage"
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
    Welcome: {Sender.TRAINER},
    NotInvited: {Sender.TRAINER},
    Barred: {Sender.TRAINER},
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
    Unable: {Sender.MEMBER, Sender.INVITED},  # it may end before it knocks
    GetState: {Sender.MEMBER},
    StateChunk: {Sender.MEMBER},
    NoState: {Sender.MEMBER},
    Probe: _KNOWN,
    Probed: _KNOWN,
    DialBack: _KNOWN,
    DialedBack: _KNOWN,
    Knock: _ANYBODY,
    Renewed: _ANYBODY,
}
"""What the trainer takes, and from whom."""

_KINDS = set(ALL_MESSAGES)
assert _KINDS == set(TO_PEER) | set(TO_TRAINER), "a message that nobody takes"


def senders(
    stages: tuple[int, ...], stage: int | None, num_stages: int | None
) -> frozenset[Sender]:
    """Return what a member that may serve `stages` is to a receiver that serves `stage`.

    The trainer serves none. Where the number of stages is not known, nobody is FIRST or LAST.
    """
    found = {Sender.MEMBER}
    if stage is not None:
        places = {Sender.BEFORE: stage - 1, Sender.SAME: stage, Sender.AFTER: stage + 1}
        found |= {sender for sender, place in places.items() if place in stages}
    if num_stages is not None:
        ends = {Sender.FIRST: 0, Sender.LAST: num_stages - 1}
        found |= {sender for sender, place in ends.items() if place in stages}
    return frozenset(found)
