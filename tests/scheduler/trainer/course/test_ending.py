"""What is saved at the end is what its donors hold."""

from __future__ import annotations

from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon
from swarmrt.scheduler.trainer.membership.members import Member

BEACON = Beacon(1, 4, 1, "serving", 4, "of version 4", -1, 7, 1.0, 0, 0, 0.0)


def test_digest_of_a_version_is_never_that_of_the_one_before() -> None:
    """A newcomer is ready at version 3, listens to the reduce of the next step, and is the only one
    of its stage that is left at version 4: what it said at version 3 says nothing of that."""
    member = Member(PeerId("s1p2"), 1, named_weights=(3, "of version 3"))
    assert member.says_of(4) == ""
    member.beacon = replace(BEACON, version=3, digest="of version 3")
    assert member.says_of(4) == ""
    member.beacon = BEACON
    assert member.says_of(4) == "of version 4"
    member.named_weights = (4, "of version 4, by its Applied")
    assert member.says_of(4) == "of version 4, by its Applied"
