"""The size of the optimizer steps that a replica makes by itself."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from swarmrt.messages import Backward
from swarmrt.scheduler.instructions import RunBackward
from swarmrt.scheduler.peer.updating.averaging.own_steps import Between, own_step
from tests.scheduler.peer_core import ME, UP, Peer, mb

SHARES = st.integers(1, 4)  # one microbatch of so many is this replica's


def interval(
    local_batch: int, most_late: float, between: int, replicas: int, microbatches: int
) -> list[int]:
    """Return of how many microbatches each own step of an interval is, the round's included."""
    steps, waiting = [], 0
    for added, index in enumerate(range(0, microbatches, replicas), 1):
        waiting += 1
        size = own_step(local_batch, most_late, between, added, index + 1, microbatches)
        assert size >= 0
        if 0 < size <= waiting:
            steps.append(waiting)
            waiting = 0
    return [*steps, waiting] if waiting else steps


@given(st.integers(1, 64), st.sampled_from([0.05, 0.1, 0.25]), st.integers(0, 30), SHARES,
       st.integers(1, 1000))  # fmt: skip
@example(32, 0.1, 13, 2, 512)
def test_no_more_gradients_are_late_than_may_be_unless_one_own_step_makes_them(
    local_batch: int, most_late: float, between: int, replicas: int, microbatches: int
) -> None:
    """Each own step makes what is under way late, and so does the next version."""
    steps = interval(local_batch, most_late, between, replicas, microbatches)
    late = (len(steps) + 1) * between
    assert late <= Fraction(most_late) * sum(steps) + 1 or len(steps) == 1
    assert len(steps) >= 1, "nothing is left out"


@given(st.integers(1, 64), SHARES, st.integers(1, 1000))
def test_own_steps_are_of_the_local_batch_where_no_gradient_is_late(
    local_batch: int, replicas: int, microbatches: int
) -> None:
    """The last one takes what is left, which is no less than half of it, nor more than that and
    half of it again."""
    *steps, last = interval(local_batch, 0.1, 0, replicas, microbatches)
    assert all(size == local_batch for size in steps)
    assert last <= local_batch + -(-local_batch // 2) + 1
    assert last >= local_batch // 2 or not steps


@given(st.integers(1, 64), st.integers(0, 30), SHARES, st.integers(1, 1000))
def test_any_share_may_be_late_by_the_users_word(
    local_batch: int, between: int, replicas: int, microbatches: int
) -> None:
    of_none = interval(local_batch, 1.0, 0, replicas, microbatches)
    assert interval(local_batch, 1.0, between, replicas, microbatches) == of_none


@given(st.lists(st.integers(0, 100), min_size=200, max_size=300))
def test_what_is_between_is_reckoned_with_as_it_is_as_a_rule_or_more(counts: list[int]) -> None:
    between = Between()
    for count in counts:
        reckoned = between.seen(count)
        assert count <= reckoned <= max(counts)
    for _ in range(100):
        assert between.seen(50) >= 50
    assert 45 <= between.seen(0) <= 60, "a moment of few does not make it few"


def test_peer_counts_what_is_between_forward_and_backward() -> None:
    peer = Peer(local_from=0, local_batch=2, most_late=0.5, microbatches=100)
    heirs = [peer.pushed(mb(index)) for index in range(4)]
    ran = peer.get(Backward(1, mb(0), (UP, ME, heirs[0]), (0, 1, 2)), heirs[0])
    assert RunBackward(mb(0), True, own_step=6) in ran, "three others would be late"


def test_peer_that_commits_with_others_makes_no_step_of_its_own() -> None:
    peer = Peer(local_from=1, local_batch=2, most_late=0.5, microbatches=100)
    heir = peer.pushed()
    ran = peer.get(Backward(1, mb(0), (UP, ME, heir), (0, 1, 2)), heir)
    assert RunBackward(mb(0), True) in ran
