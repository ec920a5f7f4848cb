"""What the trainer makes of peers that say that they cannot serve, and of those that end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Ending, Unable
from swarmrt.scheduler.events import PeerLost
from swarmrt.scheduler.instructions import ReportPause, ReportUnable, ReportWaiting
from swarmrt.scheduler.trainer.membership.unable import MOST_KNOWN, MOST_TOLD, WITHIN_S
from swarmrt.scheduler.trainer.membership.unable import Unable as Known
from tests.scheduler.trainer_core import Swarm


def told(swarm: Swarm) -> list[ReportUnable]:
    return [said for _, said in swarm.told if isinstance(said, ReportUnable)]


def waited_for(swarm: Swarm) -> ReportWaiting:
    """The newest word of what the run waits for."""
    return [said for _, said in swarm.told if isinstance(said, ReportWaiting)][-1]


def test_who_cannot_serve_is_told_at_once_and_explains_what_the_run_waits_for() -> None:
    swarm = Swarm((1, 0), needed=(1, 1))
    swarm.say("volunteer", Unable(1, "stage 1 needs 9 GB"))
    swarm.say("volunteer", Unable(1, "stage 1 needs 9 GB"))
    assert told(swarm) == [ReportUnable(1, PeerId("volunteer"), "stage 1 needs 9 GB")]
    swarm.run(40.0)
    assert waited_for(swarm).ready == (1, 0)
    assert waited_for(swarm).why == ("", "volunteer could not serve it: stage 1 needs 9 GB")
    swarm.join("volunteer", 1)
    swarm.run_to(3)
    assert swarm.core.run.unable.why(1, swarm.now) == ""


def test_run_that_has_lost_a_stage_says_so_again_and_again_with_the_reason() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(3)
    del swarm.peers[PeerId("s1p0")]
    swarm.say("s1p0", Ending("its device is dead"))
    assert any(isinstance(said, ReportPause) for _, said in swarm.told)
    before = len(swarm.told)
    swarm.run(60.0)
    words = [said for _, said in swarm.told[before:] if isinstance(said, ReportWaiting)]
    assert len(words) > 30 and words[-1].needed == (1, 1) and words[-1].ready == (1, 0)
    assert words[-1].why[1] == "s1p0 could not serve it: it has ended: its device is dead"
    swarm.join("s1p1", 1)
    swarm.run(5.0)
    before = len(swarm.told)
    swarm.run(20.0)
    assert not [said for _, said in swarm.told[before:] if isinstance(said, ReportWaiting)]


def test_what_is_said_of_no_stage_or_by_who_was_expelled_is_passed_over() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(1)
    swarm.say("stranger", Unable(7, "no such stage"))
    swarm.say("stranger", Unable(-1, "no such stage"))
    swarm.core.run.conduct.expel(PeerId("liar"))
    swarm.say("liar", Unable(1, "listen to me"))
    assert not told(swarm)


def test_peer_of_a_later_epoch_is_told_of_and_ends_nothing() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(1)
    for epoch in range(50, 90):
        swarm.say("other", Beacon(epoch, 1, 1, "serving", 3, "d", -1, -1, 0.0, 0, 0, 0.0))
    assert 1 <= len(told(swarm)) <= MOST_TOLD
    assert "epoch 50 of this run, which is later than this trainer's" in told(swarm)[0].reason
    swarm.run_to(4)


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 1), st.integers(0, 2), st.floats(0, 9)))
)
def test_whatever_is_said_little_is_told_and_remembered(
    said: list[tuple[int, int, int, float]],
) -> None:
    known, now, times = Known(2), 0.0, list[float]()
    for peer, stage, reason, later_s in said:
        now += later_s
        if known.add(PeerId(f"p{peer}"), stage, f"reason {reason}", now):
            times.append(now)
        assert f"reason {reason}" in known.why(stage, now)
        assert all(len(words) <= MOST_KNOWN for words in known._words)
        assert sum(now - at < WITHIN_S for at in times) <= MOST_TOLD
    for peer in range(100):
        known.discard(PeerId(f"p{peer}"))
    assert not known.why(0, now) and not known.why(1, now)


def test_lost_link_explains_nothing_by_itself() -> None:
    swarm = Swarm((1, 1))
    swarm.run_to(1)
    swarm.feed(PeerLost(PeerId("s1p0"), "the link was closed"))
    assert swarm.core.run.unable.why(1, swarm.now) == ""
