"""What a peer believes: whom, and what. PeerCore alone, against whoever may say anything."""

from __future__ import annotations

import math

import pytest

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Admit,
    Apply,
    Backward,
    Busy,
    Evaluated,
    FailedIn,
    Forward,
    FrameKind,
    GetFrame,
    Granted,
    Hail,
    Message,
    NoFrame,
    Part,
    Prepare,
    Recover,
    Refused,
    Released,
    Stale,
    Standing,
)
from swarmrt.scheduler import seals
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    PartUnfit,
    PeersSeen,
    StateLoaded,
    WeightGradientsDone,
)
from swarmrt.scheduler.following import MOST_STEPS
from swarmrt.scheduler.instructions import (
    ClearGradients,
    DropPart,
    Forget,
    Instruction,
    KeepGradient,
    KeepInput,
    KeepPart,
    LoadState,
    Send,
)
from swarmrt.scheduler.peer.updating.cutting import LEAST_EARLY, most_early
from swarmrt.scheduler.peer.updating.sync.reducing import MAX_EARLY_OF_ONE
from swarmrt.scheduler.wiring.iwrr import Interleaved
from tests.scheduler.peer_core import MB, ME, TRAINER, UP, UP2, A, B, Peer, mb, sent

SECRET = bytes(16)
EVIL, OTHER = PeerId("evil"), PeerId("other")  # OTHER is a replica of the same stage
ALL = (0, 1, 2)
OUT_OF_RANGE = [mb(-1), mb(8), mb(777), mb(0, step=-1), MicrobatchId(0, 2, held_out=True)]


def answers(instructions: list[Instruction]) -> list[type[Message]]:
    """Kinds of messages; fails when anything else is done."""
    assert all(isinstance(i, Send) and i.payload is None for i in instructions), instructions
    return [type(i.message) for i in instructions if isinstance(i, Send)]


def keeps(instructions: list[Instruction]) -> bool:
    return any(isinstance(i, KeepInput | KeepGradient | KeepPart) for i in instructions)


# ---------------------------------------------------------------------- who may say it


@pytest.mark.parametrize("sender", [EVIL, UP, A, OTHER])
def test_a_batch_comes_from_the_trainer_alone(sender: PeerId) -> None:
    peer = Peer(stage=0)
    assert peer.get(Forward(Work(MB, 1), 1, ()), sender) == []
    assert keeps(peer.get(Forward(Work(MB, 1), 1, ())))


@pytest.mark.parametrize("sender", [EVIL, TRAINER, A, OTHER])
def test_activations_come_from_replicas_of_the_stage_before_alone(sender: PeerId) -> None:
    peer = Peer()
    assert answers(peer.get(Forward(Work(MB, 1), 1, (sender,)), sender)) in ([], [Busy])
    assert peer.get(Forward(Work(MB, 1), 1, (UP,)), sender) == [], "another's route"
    assert keeps(peer.forward())


@pytest.mark.parametrize("sender", [EVIL, TRAINER, UP, "the other replica of the next stage"])
def test_gradients_come_from_who_has_the_output_alone(sender: str) -> None:
    peer = Peer()
    to = peer.pushed()
    liar = PeerId(sender) if len(sender) < 9 else ({A, B} - {to}).pop()
    for path in ((UP, ME, liar), (UP, ME, to)):
        assert peer.get(Backward(1, MB, path, ALL), liar) == []
    assert keeps(peer.get(Backward(1, MB, (UP, ME, to), ALL), to))


def seals_for(path: tuple[PeerId, ...], epoch: int = 1, need: tuple[int, ...] = ALL) -> str:
    """As the trainer makes them."""
    what = seals.sealed(epoch, MB, path, need)
    keys = [bytes.fromhex(seals.key_of(SECRET, peer)) for peer in path]
    return b"".join(seals.seal(key, what) for key in keys).hex()


def test_a_gradient_that_was_not_granted_counts_for_nothing() -> None:
    """Whoever was handed a microbatch has all but the trainer's seal for this peer."""
    peer = Peer(key=seals.key_of(SECRET, ME))
    to = peer.pushed()
    path, other = (UP, ME, to), (UP2, ME, to)
    elsewhere = seals_for((UP, OTHER, to))  # of a path on which the liar was
    for made_up in ("", "0" * 48, "ü" * 48, elsewhere, seals_for(path, 2), seals_for(other)):
        assert peer.get(Backward(1, MB, path, ALL, made_up), to) == []
    assert peer.get(Backward(1, MB, path, (1, 2), seals_for(path)), to) == [], "of another need"
    liar = ({A, B} - {to}).pop()
    assert peer.get(Backward(1, MB, (UP, ME, liar), ALL, seals_for((UP, ME, liar))), liar) == []
    assert peer.core.seat_core.believing.refused["Backward"] == 8
    assert keeps(peer.get(Backward(1, MB, path, ALL, seals_for(path)), to))
    [(up, passed)] = sent(peer.feed(BackwardDone(MB, 1.0, 100)), Backward)
    assert up == UP and passed.seals == seals_for(path), "the peer before looks at its own"


def test_the_gradient_that_the_trainer_sends_for_takes_the_path_of_its_word() -> None:
    peer = Peer(key=seals.key_of(SECRET, ME))
    to = peer.pushed()
    path = (UP, ME, to)
    peer.get(Recover(1, MB, path, ALL, seals_for(path)))
    assert keeps(peer.get(Backward(1, MB, (UP2, ME, to), ALL, "old seals"), to))
    [(up, passed)] = sent(peer.feed(BackwardDone(MB, 1.0, 100)), Backward)
    assert (up, passed.path, passed.seals) == (UP, path, seals_for(path))


@pytest.mark.parametrize("key", ["x", "0" * 31, "g" * 32, "0" * 34])
def test_what_is_no_key_admits_nobody(key: str) -> None:
    peer = Peer()
    assert peer.get(Admit(2, 1, 0, "", -1, 0.0, (), key)) == []


def test_gradients_come_from_whom_the_trainer_names_too() -> None:
    peer = Peer()
    other = ({A, B} - {peer.pushed()}).pop()
    backward = Backward(1, MB, (UP, ME, other), ALL)
    assert peer.get(backward, other) == []
    peer.get(Recover(1, MB, (UP, ME, other), ALL))
    assert keeps(peer.get(backward, other))


@pytest.mark.parametrize("sender", [EVIL, OTHER, TRAINER])
@pytest.mark.parametrize("kind", ["output", "gradient"])
def test_frames_are_for_neighbours_that_the_trainer_vouches_for(
    kind: FrameKind, sender: PeerId
) -> None:
    peer = Peer()
    peer.accumulate()
    assert peer.get(GetFrame(1, MB, kind), sender) == []
    if sender == EVIL:
        stage = 2 if kind == "output" else 0
        given = peer.get(Standing(1, stage, EVIL, True))
        assert sent(given, Forward if kind == "output" else Backward), "its request came early"


def test_a_frame_is_not_given_for_ever() -> None:
    peer = Peer()
    peer.accumulate()
    given = [peer.get(GetFrame(1, MB, "output"), A) for _ in range(100)]
    assert sent(given[0], Forward) and sent(given[-1], NoFrame)
    assert sum(len(sent(one, Forward)) for one in given) < 20


def test_requests_of_those_whom_nobody_vouches_for_are_bounded() -> None:
    peer = Peer()
    for number in range(1000):
        peer.get(GetFrame(1, mb(number % 8), "output"), PeerId(f"evil{number}"))
        peer.get(GetFrame(1, mb(number), "output"), EVIL)
    early = peer.core.seat_core.recovery._early
    assert len(early) <= 64 and all(len(asked) <= 64 for asked in early.values())


def test_the_directory_gives_nobody_work() -> None:
    """A record is enough to be announced; the trainer's word is needed to be given anything."""
    peer = Peer()
    peer.feed(PeersSeen(2, (EVIL,)))
    pushed = {peer.pushed(mb(index)) for index in range(20)}
    assert pushed == {A, B}
    peer.get(Standing(1, 2, EVIL, True), A)
    assert EVIL not in {peer.pushed(mb(index)) for index in range(20, 40)}
    peer.get(Standing(1, 2, EVIL, True))
    assert EVIL in {peer.pushed(mb(index)) for index in range(40, 60)}


def test_standing_of_an_earlier_admission_is_void() -> None:
    peer = Peer()
    peer.get(Standing(0, 2, EVIL, True))
    peer.get(Hail(2))
    peer.get(Admit(2, 1, 0, "", -1, 0.0, ()))
    peer.get(Standing(1, 2, EVIL, True))
    peer.get(Standing(2, 0, UP, True))
    peer.get(Forward(Work(MB, 1), 2, (UP,)), UP)
    assert not sent(peer.computed(), Forward), "nobody is vouched for in this epoch yet"
    assert [to for to, _ in sent(peer.get(Standing(2, 2, B, True)), Forward)] == [B]


@pytest.mark.parametrize("sender", [EVIL, A, UP])
def test_the_trainers_words_are_the_trainers(sender: PeerId) -> None:
    peer = Peer()
    peer.accumulate()
    words: list[Message] = [
        Hail(9),
        Admit(1, 2, 5, "d", -1, 0.0, (EVIL,)),
        Granted(1, mb(1), (UP, ME, A), ALL),
        Recover(1, mb(1), (UP, ME, A), ALL),
        Standing(1, 2, EVIL, True),
        Standing(1, 2, A, False),
        Prepare(1, 0, 1, ((ME, (0,)),), (), 10),
        Apply(1, 0, 1, 1.0, False),
    ]
    for word in words:
        assert peer.get(word, sender) == [], word


@pytest.mark.parametrize("kind", [Accepted, Busy])
def test_answers_count_from_whom_was_asked(kind: type[Accepted]) -> None:
    peer = Peer()
    to = peer.pushed()
    other = ({A, B} - {to}).pop()
    peer.get(kind(Work(MB, 1), 5.0, 5.0), other)
    wiring = peer.core.seat_core.outputs.next.wiring
    assert wiring.estimates.expected_s(other) == 1.0, "nothing is known of it"
    peer.get(kind(Work(MB, 1), 5.0, 5.0), to)
    assert wiring.estimates.expected_s(to) == 5.0


def test_stale_and_no_frame_count_from_whom_was_asked() -> None:
    peer = Peer()
    peer.pushed()
    assert peer.get(Stale(Work(MB, 1)), EVIL) == []
    peer.get(Recover(1, mb(1), (UP, ME, A), (1,)))
    assert peer.get(NoFrame(1, mb(1), "output"), EVIL) == []
    assert sent(peer.get(NoFrame(1, mb(1), "output"), UP), Released)


# ---------------------------------------------------------------------- what may be true


@pytest.mark.parametrize("microbatch", OUT_OF_RANGE)
def test_microbatches_that_the_run_does_not_have_are_not_taken(microbatch: MicrobatchId) -> None:
    first, middle, last = (
        Peer(stage=0, microbatches=8),
        Peer(microbatches=8),
        Peer(2, microbatches=8),
    )
    assert answers(first.get(Forward(Work(microbatch, 1), 1, ()))) in ([], [Stale])
    for peer in (middle, last):
        assert answers(peer.forward(microbatch)) in ([], [Stale])
        assert (
            peer.get(Recover(1, microbatch, (UP, ME, A)[: 3 if peer is middle else 2], ALL)) == []
        )
        assert not peer.core.seat_core.accumulators.record


def test_steps_that_are_not_open_are_not_taken() -> None:
    peer = Peer()
    assert answers(peer.forward(mb(0, step=2))) == [Busy]
    assert answers(peer.forward(mb(0, step=1 << 60))) == [Busy]
    assert keeps(peer.forward(mb(0, step=1))), "the one after it waits"


@pytest.mark.parametrize(
    "route", [(), (UP, UP), ("",), ("x" * 1000,), (A,), tuple(f"p{i}" for i in range(99))]
)
def test_route_has_a_peer_of_each_stage_before(route: tuple[PeerId, ...]) -> None:
    assert Peer().get(Forward(Work(MB, 1), 1, route), UP) == []


@pytest.mark.parametrize("attempt", [-1, 1 << 40])
def test_attempts_are_bounded(attempt: int) -> None:
    assert Peer().forward(attempt=attempt) == []


BAD_PATHS: list[tuple[tuple[str, ...], tuple[int, ...]]] = [
    ((), ALL),
    ((UP,), ALL),
    ((UP, ME), ALL),
    ((UP, ME, A, B), ALL),
    ((UP, OTHER, A), ALL),
    ((UP, ME, "x" * 1000), ALL),
    ((UP, ME, A), (3,)),
    ((UP, ME, A), (-1,)),
    ((UP, ME, A), (1, 0)),
    ((UP, ME, A), (1, 1)),
    ((UP, ME, A), tuple(range(1000))),
]


@pytest.mark.parametrize(("path", "need"), BAD_PATHS)
def test_path_and_need_are_of_the_runs_stages(
    path: tuple[PeerId, ...], need: tuple[int, ...]
) -> None:
    peer = Peer()
    to = peer.pushed()
    assert peer.get(Backward(1, MB, path, need), to) == []
    assert peer.get(Recover(1, MB, path, need)) == []
    assert peer.get(Recover(1, mb(1), path, need)) == []
    last = Peer(num_stages=2)
    last.forward()
    last.computed()
    assert last.get(Granted(1, MB, path, need)) == []


ROSTERS = [
    (),
    ((OTHER, (0,)), (OTHER, (1,))),
    ((ME, (0,)), (ME, (1,))),
    ((ME, (0,)), (OTHER, (0,))),
    ((ME, (0, 0)),),
    ((ME, (-1,)),),
    ((ME, (5000,)),),
    ((ME, ()), ("", ())),
]


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("listeners", [(), (ME,)])
def test_rosters_that_make_no_sense_begin_no_round(
    roster: tuple[tuple[PeerId, tuple[int, ...]], ...], listeners: tuple[PeerId, ...]
) -> None:
    peer = Peer()
    assert peer.get(Prepare(1, 0, 1, roster, listeners, 10)) == []
    assert peer.reducing.round(0) is None


@pytest.mark.parametrize("tokens", [0, -5, 1 << 63])
def test_tokens_of_a_round_are_some(tokens: int) -> None:
    assert Peer().get(Prepare(1, 0, 1, ((ME, ()),), (), tokens)) == []


def test_roster_without_this_peer_is_refused() -> None:
    refused = Peer().get(Prepare(1, 0, 1, ((OTHER, (0,)),), (), 10))
    assert "not on the roster" in sent(refused, Refused)[0][1].reason


def test_what_is_kept_of_steps_to_come_is_bounded() -> None:
    peer = Peer()
    for step in range(MOST_STEPS + 100):
        peer.get(Prepare(1, step, step, ((OTHER, ()),), (ME,), 10))
        peer.get(Apply(1, step, step, 1.0, False))
    reducing = peer.reducing
    assert reducing.round(MOST_STEPS + 2) is None
    assert len(reducing._applies) <= reducing.most_behind + 2


@pytest.mark.parametrize("norm", [math.nan, math.inf, -1.0])
def test_norm_is_a_number(norm: float) -> None:
    peer = Peer()
    assert peer.get(Apply(1, 0, 1, norm, False)) == []
    assert peer.get(Admit(1, 2, 0, "", -1, norm, ())) == []


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_no_made_up_time_enters_an_estimate(seconds: float) -> None:
    """One not-a-number would stay in a mean for ever, and an infinity with every newcomer."""
    peer = Peer()
    to = peer.pushed()
    for times in ((seconds, 0.0), (0.5, seconds)):
        assert peer.get(Accepted(Work(MB, 1), *times), to) == []
        assert peer.get(Busy(Work(MB, 1), *times), to) == []
    wiring = peer.core.seat_core.outputs.next.wiring
    wiring.estimates.observe(to, seconds)
    assert wiring.estimates.expected_s(to) == 1.0
    wiring.estimates.observe(to, 0.5, seconds)
    for index in range(1, 200):
        peer.pushed(mb(index))
    wiring.add(PeerId("new"))
    assert all(math.isfinite(wiring.estimates.cost_s(seat)) for seat in wiring.peers)
    assert isinstance(wiring._policy, Interleaved)
    assert all(math.isfinite(account_s) for account_s, *_ in wiring._policy._entries.values())


def test_one_that_takes_all_and_does_nothing_comes_to_get_next_to_nothing() -> None:
    """It says that it takes a microsecond. The other one takes 0.2 s, which shows."""
    peer = Peer(microbatches=2000)
    pushed = list[PeerId]()
    for index in range(300):
        to = peer.pushed(mb(index))
        pushed.append(to)
        seconds = 1e-6 if to == A else 0.2
        peer.get(Accepted(Work(mb(index), 1), seconds, 0.0), to)
        peer.now += 0.2
        if to == B:
            peer.get(Backward(1, mb(index), (UP, ME, to), ALL), to)
            peer.feed(BackwardDone(mb(index), 0.01, 100))
        else:  # until the trainer tries again, and it goes elsewhere
            again = peer.forward(mb(index), attempt=2)
            assert sent(again, Forward)
    assert pushed[100:].count(A) < 20


# ---------------------------------------------------------------------- made-up work and parts


def test_a_made_up_microbatch_is_never_accumulated() -> None:
    """It would have had the trainer fence an honest peer, for what is not on the roster."""
    peer = Peer(microbatches=8)
    made_up = mb(777)
    for sender in (EVIL, UP):
        peer.get(Forward(Work(made_up, 1), 1, (sender,)), sender)
    for sender in (EVIL, A, B):
        peer.get(Backward(1, made_up, (UP, ME, sender), ALL), sender)
        peer.get(Backward(1, MB, (UP, ME, sender), ALL), sender)
    assert (
        not len(peer.core.seat_core.computing.tasks) and not peer.core.seat_core.accumulators.record
    )


def test_the_first_input_counts_and_what_comes_after_is_not_kept() -> None:
    peer = Peer()
    assert KeepInput(MB) in peer.forward()
    for sender in (UP, UP2):
        for attempt in range(2, 9):
            again = peer.get(Forward(Work(MB, attempt), 1, (sender,)), sender)
            assert answers(again) == [Accepted]


def test_early_parts_of_one_sender_leave_room_for_others() -> None:
    peer = Peer()
    kept = [peer.get(Part(1, 0, 9, index, True), EVIL) for index in range(1000)]
    assert sum(map(keeps, kept)) == MAX_EARLY_OF_ONE
    assert keeps(peer.get(Part(1, 0, 9, 0, True), OTHER))
    for number in range(100):
        for index in range(20):
            peer.get(Part(1, 0, number, index, False), PeerId(f"evil{number}"))
    size = peer.core.seat_core.seat.settings.gradient_bytes
    assert len(peer.reducing._early) == most_early(size) < 2 * LEAST_EARLY


def test_early_parts_that_are_none_of_their_round_are_dropped() -> None:
    peer = Peer()
    for sender, index in ((OTHER, 0), (EVIL, 0), (OTHER, 7)):
        assert keeps(peer.get(Part(1, 0, 9, index, True), sender))
    begun = peer.get(Prepare(1, 0, 9, ((OTHER, ()), (ME, ())), (), 10))
    dropped = {i for i in begun if isinstance(i, DropPart)}
    assert dropped == {DropPart(EVIL, 0, 9, 0, True), DropPart(OTHER, 0, 9, 7, True)}


@pytest.mark.parametrize("index", [-1, 3, 1 << 40])
@pytest.mark.parametrize("summed", [True, False])
def test_parts_are_those_of_the_round(index: int, summed: bool) -> None:
    peer = Peer()
    peer.get(Prepare(1, 0, 1, ((OTHER, ()), (ME, ())), (), 10))
    assert peer.get(Part(1, 0, 1, index, summed), OTHER) == []
    assert peer.get(Part(1, 0, 1, 0, True), EVIL) == []


def test_unfit_part_is_refused_with_whose_it_is() -> None:
    peer = Peer()
    peer.get(Prepare(1, 0, 1, ((OTHER, ()), (ME, ())), (), 10))
    refused = peer.feed(PartUnfit(0, 1, OTHER, "has 3 values"))
    [(_, message)] = sent(refused, Refused)
    assert message.unfit == OTHER and "has 3 values" in message.reason
    assert not message.unreachable, "its link is well"
    assert peer.feed(PartUnfit(0, 7, OTHER, "")) == [], "of another round"


# ---------------------------------------------------------------------- what cannot be computed


def test_forward_that_fails_is_released_and_ends_nobody() -> None:
    peer = Peer()
    peer.forward()
    failed = peer.feed(ComputeFailed(MB, "forward", "RuntimeError: mat1 and mat2"))
    assert Forget(MB) in failed
    [(_, released)] = sent(failed, Released)
    assert released.failed and "mat1 and mat2" in released.reason
    assert not len(peer.core.seat_core.computing.tasks)


def test_who_sends_what_cannot_be_computed_is_refused_longer_and_longer_but_not_for_good() -> None:
    peer = Peer()
    waits = []
    for attempt in range(1, 7):
        peer.forward(attempt=attempt)
        peer.feed(ComputeFailed(MB, "forward", "it fails"))
        failed_at = peer.now
        while answers_busy(peer, attempt):
            peer.now += 0.1
        waits.append(peer.now - failed_at)
        peer.feed(ComputeFailed(MB, "forward", "it fails"))
        peer.now += 120
    assert waits == sorted(waits) and waits[-1] > 4 * waits[0] > 0
    peer.forward(mb(1))
    peer.computed(mb(1))
    assert not peer.core.seat_core.forwards.blame.bars(UP, peer.now), "it has sent something sound"


def answers_busy(peer: Peer, attempt: int) -> bool:
    return sent(peer.forward(attempt=attempt), Busy) != []


def test_the_trainer_is_never_refused() -> None:
    peer = Peer(stage=0)
    for attempt in range(1, 9):
        assert keeps(peer.get(Forward(Work(MB, attempt), 1, ())))
        peer.feed(ComputeFailed(MB, "forward", "it fails"))


def test_failed_evaluation_is_told() -> None:
    peer, held_out = Peer(num_stages=2), MicrobatchId(0, 0, held_out=True)
    peer.forward(held_out)
    failed = peer.feed(ComputeFailed(held_out, "forward", "it fails"))
    assert sent(failed, Released)[0][1].failed and not sent(failed, Evaluated)


@pytest.mark.parametrize("what", ["backward", "weights"])
def test_backward_that_fails_midway_voids_what_is_in_the_accumulators(what: FailedIn) -> None:
    """A part of the gradient may be in them, so nothing in them can be reduced."""
    peer = Peer(most_left=1)
    peer.accumulate(mb(1))
    peer.feed(WeightGradientsDone(mb(1), 1.0))
    to = peer.pushed()
    peer.get(Backward(1, MB, (UP, ME, to), ALL), to)
    if what == "weights":
        peer.feed(BackwardDone(MB, 1.0, 100))
    failed = peer.feed(ComputeFailed(MB, what, "it fails"))
    assert ClearGradients() in failed and sent(failed, Released)[0][1].failed
    assert not peer.core.seat_core.accumulators.record and not peer.core.seat.is_serving
    assert peer.core.seat.term == 0, "the trainer sees that its work is void, and admits it again"
    peer.get(Admit(1, 2, 0, "", -1, 0.0, ()))
    peer.get(Standing(1, 0, UP, True))
    assert not peer.core.seat_core.accumulators.is_spoiled and keeps(peer.forward())


def test_what_fails_and_is_void_already_is_cleared_with_the_rest() -> None:
    peer = Peer()
    to = peer.pushed()
    peer.get(Backward(1, MB, (UP, ME, to), ALL), to)
    peer.get(Admit(1, 2, 0, "", -1, 0.0, ()))
    failed = peer.feed(ComputeFailed(MB, "backward", "it fails"))
    assert failed == [ClearGradients(), Forget(MB)]


def test_state_with_another_digest_than_the_admission_names_is_not_served() -> None:
    peer = Peer()
    assert LoadState(3, (A,), "three") in peer.get(Admit(1, 2, 3, "three", -1, 0.0, (A,)))
    peer.feed(StateLoaded(3, "another"))
    assert peer.core.seat.state == "joining"
