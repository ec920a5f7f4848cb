"""What is in the accumulators of a seat, and when it is cleared."""

from __future__ import annotations

from swarmrt.scheduler.instructions import ClearGradients
from swarmrt.scheduler.peer.updating.accumulators import Accumulators
from tests.scheduler.peer_core import MB, mb


def test_a_microbatch_whose_weights_gradients_are_left_counts_before_they_are_added() -> None:
    accumulators = Accumulators()
    accumulators.begin(MB)
    assert accumulators.is_adding(MB) and not accumulators.has(MB)
    accumulators.leave_weights(MB)
    assert accumulators.is_half_added(MB)
    accumulators.half_added(MB)
    assert accumulators.has(MB) and accumulators.indices(0) == {0} and not accumulators.record
    accumulators.begin(MB)
    accumulators.weights_added(MB)
    assert accumulators.ended(MB) and not accumulators.ended(MB), "it is told once"


def test_what_fails_while_it_is_added_spoils_them_until_they_are_void() -> None:
    accumulators = Accumulators()
    accumulators.failed(MB)
    assert not accumulators.void(), "it has added nothing"
    accumulators.begin(MB)
    accumulators.failed(MB)
    assert accumulators.is_spoiled
    assert accumulators.void() == [ClearGradients()] and not accumulators.void()


def test_a_version_takes_what_is_over_and_nothing_else() -> None:
    accumulators = Accumulators()
    accumulators.record |= {mb(0), mb(1, 1)}
    accumulators.leave_weights(mb(2))
    accumulators.leave_weights(mb(3, 1))
    accumulators.forget(lambda microbatch: microbatch.step < 1)
    assert not accumulators.indices(0) and accumulators.indices(1) == {1, 3}
