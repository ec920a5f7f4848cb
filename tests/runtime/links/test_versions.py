"""Links between processes of different ages: what they agree on, and what they pass over."""

from __future__ import annotations

import pytest

from swarmrt.messages import Finish
from swarmrt.wire.versions import SPEAKS, Versions
from tests.runtime.links.test_links import Link, both_carriers, run, two_ends, until
from tests.wire.test_other_ages import unknown

NEWER = Versions(SPEAKS.most, SPEAKS.most + 2)


@both_carriers
def test_both_ends_say_that_they_have_no_common_version(
    link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        later = Versions(SPEAKS.most + 2, SPEAKS.most + 3)
        async with two_ends(link, speaks=later) as (first, second):
            first.links.send(second.me, Finish("nobody understands this"))
            here = (
                f"this process speaks version {SPEAKS} of the protocol, the other end {later}: "
                "update swarmrt of this process"
            )
            there = (
                f"this process speaks version {later} of the protocol, the other end {SPEAKS}: "
                "update swarmrt of the other end"
            )
            said = {
                f"closing the link to {second.me}: {here}",
                f"closing the link to {first.me}: {there}",
            }
            await until(lambda: said <= set(caplog.messages))
            await until(lambda: first.lost)
            assert (second.me, here) in first.lost
            assert not second.got and not first.links.peers() and not second.links.peers()

    run(story())


def test_the_higher_common_version_is_used() -> None:
    async def story() -> None:
        async with two_ends("direct", speaks=NEWER) as (first, second):
            first.links.send(second.me, Finish("both speak this"))
            await until(lambda: second.got)
            versions = [link.version for end in (first, second) for link in end.links._links]
            assert versions == [SPEAKS.most, SPEAKS.most]

    run(story())


@both_carriers
def test_messages_of_unknown_kinds_are_passed_over_and_counted(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.send(second.me, Finish("before"))
            await until(lambda: second.got)
            [open_link] = first.links._links
            for number in range(1000, 1003):
                open_link.connection.write([unknown(1 << 20, number)])
            first.links.send(second.me, Finish("after"))
            await until(lambda: len(second.got) == 2)
            assert second.messages() == [Finish("before"), Finish("after")]
            assert second.links.quotas.refused["unknown kinds"] == 3
            assert not first.lost and not second.lost

    run(story())
