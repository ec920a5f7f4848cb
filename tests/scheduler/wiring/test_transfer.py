"""The seconds that a byte takes over a link."""

from __future__ import annotations

from swarmrt.scheduler.wiring.transfer import Transfer

FRAME = 1_000_000  # bytes


def test_latency_is_no_transfer() -> None:
    """Keshav 1991: a frame a second, each answered half a second later, leaves the link idle."""
    transfer = Transfer()
    for turn in range(20):
        transfer.answered(FRAME, turn, turn + 0.5)
    assert transfer.s_per_byte.mean_s * FRAME <= 0.5


def test_a_pair_of_frames_shows_what_the_link_carries() -> None:
    transfer = Transfer()
    for turn in range(20):
        transfer.answered(FRAME, 10.0 * turn, 10.0 * turn + 2.1)
        transfer.answered(FRAME, 10.0 * turn, 10.0 * turn + 4.1)
    assert abs(transfer.s_per_byte.mean_s * FRAME - 2.0) < 0.01


def test_a_frame_that_is_waited_for_in_vain_counts_until_one_comes_sooner() -> None:
    transfer = Transfer()
    transfer.takes(FRAME, 15.0)
    assert transfer.s_per_byte.mean_s * FRAME == 15.0
    transfer.answered(FRAME, 20.0, 20.1)
    assert transfer.s_per_byte.mean_s * FRAME < 0.11


def test_what_has_no_bytes_says_nothing() -> None:
    transfer = Transfer()
    transfer.takes(0, 15.0)
    transfer.answered(0, 0.0, 9.0)
    assert transfer.s_per_byte.samples == 0
