"""The messages on the wire: who says what to whom. `docs/wire.md` is the full contract.

trainer → peer   Hail · Admit · Forward (stage 0) · Granted · Stale · Recover · Standing ·
                 Prepare · Update · Apply · Drain · Finish · LeftOut · Welcome · NotInvited ·
                 Barred · Take · GiveUp · SayEvery
peer → trainer   Beacon · Ready · Claim · Evaluated · Accumulated · Released · Prepared ·
                 Refused · Updated · Applied · Leaving · Ending · Unable · Knock · Offer
peer → peer      Forward · Accepted · Busy · Backward · GetFrame · NoFrame · Part
anyone → donor   GetState, answered by StateChunk or NoState
anyone → anyone  Probe, answered by Probed; DialBack, answered by DialedBack · Renewed
anyone → trainer GetFacts, answered by Facts

`swarmrt/permissions.py` says which of them is taken from whom.

Messages are plain values. Tensors travel beside them; the comment `payload:` says which.

Every message of work names the trainer's epoch; what a peer says of its own contribution also
names its term, the number of its admission. Work of a lower epoch, and words of an earlier term,
are void. Every handler may be called twice with the same message, and may miss any of them.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from swarmrt.foreign import printable
from swarmrt.ids import NO_ISLAND, MicrobatchId, PeerId, SeatId, Work
from swarmrt.recorded import Recorded

Roster = tuple[tuple[SeatId, tuple[int, ...]], ...]
"""For each replica of a stage, in reduce order, the indices of the microbatches it accumulated."""

Path = tuple[SeatId, ...]
"""For each stage, the peer that a microbatch's backward passes."""


class MessageBase(Recorded, frozen=True):
    """Base of all messages."""


class Reasoned(MessageBase, frozen=True):
    """A message that tells people why: in one short line, fit to be shown, whoever made it."""

    def __post_init__(self) -> None:
        reason: str = self.reason  # type: ignore[attr-defined]  # in its place among the others
        msgspec.structs.force_setattr(self, "reason", printable(reason))


class Hail(MessageBase, frozen=True):
    """A trainer incarnation is here: stop what you do for earlier ones, and say what you hold."""

    epoch: int
    fingerprint: str = ""  # of all that decides the weights, in 32 hex digits


class Admit(MessageBase, frozen=True):
    """Serve, at this version. What this peer did in an earlier term or epoch is void.

    Without donors the peer has the version already, or builds version 0 from the seed.
    """

    epoch: int
    term: int  # higher than of any earlier admission in the epoch
    version: int
    digest: str  # of the version's parameters, where it is known
    applied: int  # round of the update that made the version; or -1
    norm: float  # of that update
    donors: tuple[SeatId, ...]
    key: str = ""  # of seals for this peer, in hex; without it gradients need none


class Ready(MessageBase, frozen=True):
    """A peer's word that it has this version, and takes work."""

    epoch: int
    term: int
    version: int
    digest: str  # of its parameters


class Forward(MessageBase, frozen=True):
    """Compute this stage. payload: inputs (token ids [B, T] or activations), targets [B, T]."""

    work: Work
    epoch: int
    route: tuple[SeatId, ...]  # peers passed so far, by stage


class Accepted(MessageBase, frozen=True):
    """The answer to a Forward that was taken: its frame need not be sent elsewhere."""

    work: Work
    service_s: float  # smoothed seconds of one forward and backward at this peer; 0 unknown
    backlog_s: float  # estimated seconds of work queued before this one


class Busy(MessageBase, frozen=True):
    """The answer to a Forward that was not taken."""

    work: Work
    service_s: float
    backlog_s: float


class Claim(MessageBase, frozen=True):
    """The last stage has the loss, and asks whether this route may run backward."""

    work: Work
    epoch: int
    route: tuple[SeatId, ...]
    loss_sum: float
    tokens: int


class Granted(MessageBase, frozen=True):
    """Run backward along this path. The stages in `need` accumulate, the others pass it on."""

    epoch: int
    microbatch: MicrobatchId
    path: Path
    need: tuple[int, ...]
    seals: str = ""  # one for each peer of the path, one after the other


class Stale(MessageBase, frozen=True):
    """A word that this attempt is not needed: drop it."""

    work: Work


class Evaluated(MessageBase, frozen=True):
    """The last stage's loss of a held-out microbatch."""

    work: Work
    epoch: int
    loss_sum: float
    tokens: int


class Backward(MessageBase, frozen=True):
    """Run backward. payload: the gradient of this stage's output."""

    epoch: int
    microbatch: MicrobatchId
    path: Path
    need: tuple[int, ...]
    seals: str = ""  # as they were granted


class Accumulated(MessageBase, frozen=True):
    """A receipt: this stage's gradient of the microbatch is in the sender's accumulator."""

    epoch: int
    term: int
    microbatch: MicrobatchId
    stage: int


class Recover(MessageBase, frozen=True):
    """A word to the new owner of this (microbatch, stage): get what you lack from your neighbours
    on the path.

    payload at stage 0: token ids and targets. Also sent to an owner that is overdue.
    """

    epoch: int
    microbatch: MicrobatchId
    path: Path
    need: tuple[int, ...]
    seals: str = ""  # for the peers before this one


FailedIn = Literal["", "forward", "backward", "weights"]


class Released(Reasoned, frozen=True):
    """The sender has not accumulated this (microbatch, stage), and will not."""

    epoch: int
    term: int
    microbatch: MicrobatchId
    reason: str
    failed: FailedIn = ""  # what of it raised an error
    not_finite: bool = False  # no error: what came of it was not finite


FrameKind = Literal["output", "gradient"]


class GetFrame(MessageBase, frozen=True):
    """Send again, to me, what a stage sent: its output as a Forward, or its input gradient as a
    Backward."""

    epoch: int
    microbatch: MicrobatchId
    kind: FrameKind


class NoFrame(MessageBase, frozen=True):
    """The sender does not retain that frame, and will not have it."""

    epoch: int
    microbatch: MicrobatchId
    kind: FrameKind


class Standing(MessageBase, frozen=True):
    """The trainer's word on a peer: it takes work, though only in need if it is not near; or it is
    fenced, so wait for nothing from it."""

    epoch: int
    stage: int
    peer: SeatId
    serving: bool
    service_s: float = 0.0  # of a forward and backward there, by its own word; 0 unknown
    near: bool = True  # in the island of whoever is told
    holds: int = 0  # microbatches that it has room for, by its own word; 0 unknown


class Prepare(MessageBase, frozen=True):
    """Combine the stage's gradients, or what its replicas have moved, over this roster, and keep
    the result aside."""

    epoch: int
    step: int
    round: int  # unique over all steps and incarnations, and counting up
    roster: Roster
    listeners: tuple[SeatId, ...]  # newcomers, who get the sums too
    tokens: int  # of the whole step, or its microbatches: what the sum is divided by
    skip: bool = False  # nothing is combined: the version after it has the same weights
    by_owners: bool = False  # the update is made by the parts' owners, and adopted by all


class Part(MessageBase, frozen=True):
    """A part of the reduce. payload: a flat slice.

    Not summed: the sender's gradients, for the part's owner. Summed: the owner's result. Updated:
    the parameters and moments that the owner has made of it, where `by_owners` asks for that.
    """

    epoch: int
    step: int
    round: int
    index: int  # of the part; its owner is the roster's member at index modulo their number
    summed: bool
    updated: bool = False


class Prepared(MessageBase, frozen=True):
    """The sender holds the stage's whole mean gradient."""

    epoch: int
    step: int
    round: int
    digest: str
    squared_norm: float


class Refused(Reasoned, frozen=True):
    """The sender cannot take part in the round: its record differs from its entry in the roster,
    or it cannot reach another member, or a contributor's slice is not finite, or a part that it was
    sent is none of the round."""

    epoch: int
    step: int
    round: int
    reason: str
    unreachable: SeatId = SeatId("")  # that member, or empty
    not_finite: SeatId = SeatId("")  # that contributor, or empty
    unfit: SeatId = SeatId("")  # who sent that part, or empty


class Update(MessageBase, frozen=True):
    """A word that all stages are prepared, where the parts' owners update: do so, with the global
    norm, and keep what comes of it aside."""

    epoch: int
    step: int
    round: int
    norm: float


class Updated(MessageBase, frozen=True):
    """The sender holds the whole state after the update, aside."""

    epoch: int
    step: int
    round: int
    digest: str  # of parameters and moments


class Apply(MessageBase, frozen=True):
    """A word that all stages are prepared: clip by the global norm and step the optimizer."""

    epoch: int
    step: int
    round: int
    norm: float
    snapshot: bool  # keep a copy of the new state for GetState
    digest: str = ""  # of the gradient that the stage has agreed on, or of what owners made of it


class Applied(MessageBase, frozen=True):
    """The update is done."""

    epoch: int
    version: int
    digest: str  # of the parameters
    local_steps: int = 0  # of this replica's own since the version before
    late: float = 0.0  # share of its backwards on weights that were no longer its newest
    drift: float = 0.0  # how far its weights were from the version, beside that one's norm


class GetState(MessageBase, frozen=True):
    """Send this range of the snapshot. A peer's own stage, or the one asked of a checkpoint."""

    stage: int
    version: int
    offset_bytes: int
    length_bytes: int


class StateChunk(MessageBase, frozen=True):
    """A piece of a snapshot. payload: bytes of a safetensors file that is equal on all replicas."""

    stage: int
    version: int
    offset_bytes: int
    total_bytes: int
    digest: str  # of the whole file


class NoState(MessageBase, frozen=True):
    """The sender does not hold that snapshot."""

    stage: int
    version: int
    offset_bytes: int


PeerState = Literal["joining", "loading", "serving", "leaving"]


class Beacon(MessageBase, frozen=True):
    """The state of a peer: what it is and holds, and its load and progress. Whoever misses a
    message finds out by the next beacon."""

    epoch: int
    term: int  # of its admission; 0 for none
    stage: int
    state: PeerState
    version: int
    digest: str  # of the version's parameters
    prepared: int  # round of step `version` whose whole gradient is here, to be applied; or -1
    applied: int  # round of the update that made `version`; or -1
    norm: float  # of that update
    queued: int  # that it could compute now
    done: int  # forwards and backwards computed since the start
    service_s: float
    waits_for: SeatId = SeatId("")  # in a round: a member, itself for a sum of its own, or empty
    gradient_bytes: int = 0  # of its stage, as they travel
    moved_bytes: int = 0  # of states and of parts, that have come and gone since the start
    gradient_s: float = 0.0  # that a gradient takes over its link; 0 while that is not known
    spare: bool = False  # it takes work only in the place of a replica that is lost
    island: int = NO_ISLAND  # that it asks for, if it asks for any
    paused: bool = False  # its owner has the device: it keeps its state, and takes no work
    holds: int = 0  # microbatches that its memory has room for; 0 where that is not known
    every_s: float = 0.0  # within which the next one follows; 0 for the usual interval


class Leaving(MessageBase, frozen=True):
    """The sender wants to go. Until it is told to drain it serves as before."""

    epoch: int
    term: int
    idle: bool  # it has drained, and holds nothing of this step
    stays: bool = False  # it was told to drain, and does not go: it stands by from now on


NO_MICROBATCH = MicrobatchId(-1, 0)


class Ending(Reasoned, frozen=True):
    """The sender ends with an error, and answers nobody any more."""

    reason: str  # for people
    microbatch: MicrobatchId = NO_MICROBATCH  # whose computation has ended it, if one has


class Unable(Reasoned, frozen=True):
    """The sender cannot serve this stage as things are: it does not even begin, or could not load
    its state."""

    stage: int
    reason: str  # for people


class Drain(MessageBase, frozen=True):
    """The end of work for a peer, whose stage others serve: take nothing new, do what was accepted,
    say when nothing is left. Or the opposite: nobody else serves it any more, so serve as before.
    Who did not want to go stands by afterwards.
    """

    epoch: int
    back: bool = False  # it is taken back


class Finish(Reasoned, frozen=True):
    """The run is over, or the sender of Leaving may go."""

    reason: str


TooSlow = Literal["link", "state", "round", "step"]
"""What takes too long: a gradient over a newcomer's link, its state, a member's rounds, or whole
steps with it."""


class LeftOut(MessageBase, frozen=True):
    """The run goes on without this peer for a while: waiting for it costs more than it gives."""

    epoch: int
    term: int  # of the admission that ends by it
    what: TooSlow
    takes_s: float
    step_s: float  # that a step takes without it
    rest_s: float  # before it is tried again


class Probe(MessageBase, frozen=True):
    """Answer this. payload: any bytes, to see how long they take."""

    number: int
    answer_bytes: int  # of payload in the answer


class Probed(MessageBase, frozen=True):
    """The answer to a Probe. payload: as many zeros as were asked for."""

    number: int
    clock_s: float  # the sender's wall clock, seconds since 1970
    affordable: bool  # otherwise there is no payload, because there have been too many probes


class Knock(MessageBase, frozen=True):
    """The sender wants to serve these stages. Its greeting shows why it may."""

    stages: tuple[int, ...]


class Welcome(MessageBase, frozen=True):
    """The answer to a Knock: the sender of it is a member until its membership ends."""

    membership: str  # a statement of the run's owner, to be shown in greetings
    targets_key: str  # in hex; that of the targets, for those who serve the last stage; or empty


class NotInvited(Reasoned, frozen=True):
    """The answer to a Knock that does not let its sender in."""

    reason: str  # for people


class Renewed(MessageBase, frozen=True):
    """The sender is a member for longer than its greeting has said."""

    membership: str


class Barred(MessageBase, frozen=True):
    """The peers that have been turned out: take nothing from them, whatever they show."""

    peers: tuple[PeerId, ...]


class DialBack(MessageBase, frozen=True):
    """Dial the sender at the address from which this link comes, and nowhere else."""

    number: int
    libp2p: int  # ports; 0 for one that is not to be tried
    direct: int
    udp: int


class DialedBack(MessageBase, frozen=True):
    """The answer to a DialBack. Whether a datagram has come its receiver knows best."""

    number: int
    host: str  # the IP address that was dialed; empty when the link's is not the sender's own
    libp2p: bool  # whether it was reached there
    direct: bool
    affordable: bool  # otherwise nothing was dialed, because there have been too many requests


class Offer(MessageBase, frozen=True):
    """A process that serves where it helps most says what its owner allows, and what it holds: from
    time to time, and when that changes. Without stages it leaves."""

    stages: tuple[int, ...]  # that it may serve
    held: tuple[int, ...]  # at which it has a seat, opens or closes one
    rooms: int  # states that it has room for at a time
    pinned: bool = False  # it stays where it serves
    down_bytes_per_s: float = 0.0  # that states and reduces may take; 0 where nobody says
    listening_share: float = 0.0  # of that, which reduces of a second stage may take; 0 for none
    for_s: float = 0.0  # until its owner takes it back; 0 where nobody says
    every_s: float = 0.0  # within which the next one follows; 0 for the usual interval


class Take(Reasoned, frozen=True):
    """Open a seat at this stage, which loads its state, and follows until it is to serve."""

    epoch: int
    stage: int
    reason: str  # for people


class GiveUp(Reasoned, frozen=True):
    """Close the seat at this stage: as if its owner had asked that seat to leave."""

    epoch: int
    stage: int
    reason: str  # for people


class GetFacts(MessageBase, frozen=True):
    """Tell from which facts it would be decided now who serves what."""

    number: int


Idle = Literal["", "off", "nobody", "begins", "ends", "large"]
"""Why nothing is decided: the run has it switched off, no process serves where it helps most, the
run begins or ends. Or why nothing is told: there are too many."""


class Facts(MessageBase, frozen=True):
    """The answer to GetFacts. payload: the facts in msgpack, where anything is decided."""

    number: int
    affordable: bool  # otherwise there is no payload, because there have been too many questions
    version: int
    idle: Idle
    standby_share: float  # of the peers, that are to hold a second state


class SayEvery(MessageBase, frozen=True):
    """Say how you are once in so many seconds from now on, a seat by its beacon, a process by its
    offer: the swarm has grown or shrunk."""

    epoch: int
    every_s: float


Message = (
    Hail | Admit | Ready | Forward | Accepted | Busy | Claim | Granted | Stale | Evaluated
    | Backward | Accumulated | Recover | Released | GetFrame | NoFrame | Standing | Prepare | Part
    | Prepared | Refused | Apply | Applied | GetState | StateChunk | NoState | Beacon | Leaving
    | Drain | Finish | Probe | Probed | Knock | Welcome | NotInvited | Renewed | Barred | DialBack
    | DialedBack | LeftOut | Update | Updated | Ending | Unable | Offer | Take | GiveUp | GetFacts
    | Facts | SayEvery
)  # fmt: skip
ALL_MESSAGES: tuple[type[Message], ...] = get_args(Message)
"""In the order of their numbers on the wire, which start at 1."""
