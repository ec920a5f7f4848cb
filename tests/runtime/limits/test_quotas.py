"""What one end may take of a process: rates, places, and what is written about it."""

from __future__ import annotations

import logging

import pytest

from swarmrt.config import LEAST_MESSAGE_BYTES, RunConfig
from swarmrt.errors import WireError
from swarmrt.ids import BETWEEN_PROCESSES, MicrobatchId, PeerId, Seats, Work
from swarmrt.messages import (
    Accepted,
    Backward,
    Finish,
    Forward,
    Message,
    Part,
    Probe,
    Probed,
    StateChunk,
)
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.limits.quotas import (
    LEAST_PACE,
    STRANGERS_PACE,
    Quota,
    Quotas,
    pace_of,
    payloads_of,
)
from swarmrt.runtime.limits.rates import MOST_BUCKETS, Bucket, Buckets, Rate
from swarmrt.runtime.limits.sparing import Sparing
from swarmrt.runtime.links.greetings import Greetings, source_of
from swarmrt.runtime.reach.addresses import Reach
from swarmrt.trust.sealing import TAG_BYTES
from swarmrt.wire.limits import Limits

ALICE, BOB = PeerId("alice"), PeerId("bob")
FINISH = Finish("")


def never(reason: str) -> None:
    raise AssertionError(reason)


# ---------------------------------------------------------------------- rates


def test_bucket_gives_what_it_has_and_fills_up_again() -> None:
    bucket = Bucket(Rate(10, 2), 100.0)
    assert bucket.take(10, 100.0) and not bucket.take(1, 100.0)
    assert not bucket.take(3, 101.0) and bucket.take(2, 101.0)
    bucket.fill(1000.0)
    assert bucket.left == 10
    bucket.change(Rate(100, 1))
    assert bucket.take(100, 1000.0) and not bucket.take(1, 1000.0)


def test_buckets_are_forgotten_when_they_are_as_good_as_new() -> None:
    buckets: Buckets[int] = Buckets(Rate(10, 1))
    for key in range(3 * MOST_BUCKETS):
        assert buckets.take(key, 10, now=float(key))
        assert len(buckets) <= MOST_BUCKETS
    assert not buckets.take(3 * MOST_BUCKETS - 1, 10, now=3.0 * MOST_BUCKETS)


# ---------------------------------------------------------------------- greetings


def test_whoever_opens_most_makes_room_for_others() -> None:
    """Hole: 256 silent connections kept everybody out for ten seconds and more."""
    greetings: Greetings[int] = Greetings(64)
    for number in range(64):
        assert greetings.add(number, "198.51.100.7") is None
    assert greetings.add(1000, "192.0.2.1") == 0
    for number in range(64, 1000):
        assert greetings.add(number, "198.51.100.7") == number - 63
    assert len(greetings) == 64
    greetings.done(1000)
    greetings.done(1000)
    assert len(greetings) == 63 and greetings.add(1001, "192.0.2.1") is None


def test_of_equals_the_oldest_goes() -> None:
    greetings: Greetings[int] = Greetings(4)
    for number in range(4):
        assert greetings.add(number, f"192.0.2.{number}") is None
    assert [greetings.add(n, f"192.0.2.{n}") for n in range(4, 7)] == [0, 1, 2]


def test_sources_are_machines_and_households() -> None:
    assert source_of("192.0.2.1") != source_of("192.0.2.2")
    assert source_of("127.0.0.1") == source_of("127.1.2.3") == source_of("::ffff:127.0.0.1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")
    assert source_of("2001:db8:0:1::5") == source_of("2001:db8:0:ff::6%eth0")
    assert source_of("2001:db8:0:1::5") != source_of("2001:db8:0:200::5")


# ---------------------------------------------------------------------- messages


class SomeKnown(UnguardedDoor):
    """A door that knows these peers alone."""

    def __init__(self, known: set[PeerId]) -> None:
        super().__init__("test")
        self.known = known

    def is_known(self, peer: PeerId) -> bool:
        return peer in self.known


ALL = UnguardedDoor("test")


def entered(quotas: Quotas, peer: PeerId = ALICE) -> Quota:
    return quotas.enter(peer, never)


def says(quotas: Quotas, quota: Quota, message: Message, header_bytes: int = 100) -> bool:
    return quotas.check(quota, message, 0, header_bytes)


def test_who_says_more_than_the_run_has_use_for_is_refused() -> None:
    quotas = Quotas(Limits.of(1 << 20), 4, pace_of(8), door=ALL, now=lambda: 0.0)
    quota = entered(quotas)
    for _ in range(int(LEAST_PACE.most)):
        assert says(quotas, quota, FINISH)
    with pytest.raises(WireError, match="more than 5000 messages a second"):
        says(quotas, quota, FINISH)
    assert says(quotas, entered(quotas, BOB), FINISH)
    assert quotas.refused == {"too many messages": 1}


def test_pace_is_kept_over_connections() -> None:
    quotas = Quotas(Limits.of(1 << 20), 4, Rate(10, 1), door=ALL, now=lambda: 0.0)
    first = entered(quotas)
    for _ in range(10):
        assert says(quotas, first, FINISH)
    quotas.leave(first)
    again = entered(quotas)
    with pytest.raises(WireError):
        says(quotas, again, FINISH)


def test_long_headers_count_as_many_messages() -> None:
    quotas = Quotas(Limits.of(1 << 20), 4, Rate(1000, 1), door=ALL, now=lambda: 0.0)
    quota = entered(quotas)
    assert says(quotas, quota, FINISH, header_bytes=200 << 10)
    with pytest.raises(WireError):
        says(quotas, quota, FINISH, header_bytes=200 << 10)


def test_large_steps_have_a_large_pace() -> None:
    assert pace_of(8) == LEAST_PACE
    assert pace_of(10_000).per_s == 20 * (4 * 10_000 + 64)


def test_stranger_may_be_probed_and_says_little() -> None:
    quotas = Quotas(Limits.of(1 << 20), 4, pace_of(8), door=SomeKnown(set()), now=lambda: 0.0)
    quota = entered(quotas)
    assert quotas.limits(quota).payload_bytes.keys() == {Probe, Probed}
    for _ in range(int(STRANGERS_PACE.most)):
        assert says(quotas, quota, Probe(1, 0))
    with pytest.raises(WireError):
        says(quotas, quota, Probe(1, 0))


def test_stranger_may_become_known_while_its_link_is_open() -> None:
    known: set[PeerId] = set()
    quotas = Quotas(Limits.of(1 << 20), 4, pace_of(8), door=SomeKnown(known))
    quota = entered(quotas)
    assert Forward not in quotas.limits(quota).payload_bytes
    known.add(ALICE)
    assert quotas.limits(quota).payload_bytes[Forward] == 1 << 20
    assert all(says(quotas, quota, FINISH) for _ in range(1000))
    known.clear()
    assert Forward not in quotas.limits(entered(quotas)).payload_bytes


class FromAlice(UnguardedDoor):
    """A door through which Alice alone may say anything."""

    def __init__(self) -> None:
        super().__init__("test")
        self.asked: list[tuple[PeerId, type[Message]]] = []

    def may_say(self, peer: PeerId, kind: type[Message], seats: Seats = BETWEEN_PROCESSES) -> bool:
        self.asked.append((peer, kind))
        return peer == ALICE


def test_door_of_the_run_is_asked_last() -> None:
    door = FromAlice()
    quotas = Quotas(Limits.of(1 << 20), 4, door=door)
    assert says(quotas, entered(quotas), FINISH)
    assert not says(quotas, entered(quotas, BOB), FINISH)
    assert door.asked == [(ALICE, Finish), (BOB, Finish)]


def test_peers_that_are_gone_are_forgotten_in_time() -> None:
    quotas = Quotas(Limits.of(1 << 20), 4, door=ALL)
    stays = entered(quotas)
    for number in range(5000):
        quotas.leave(entered(quotas, PeerId(f"passes {number}")))
    assert len(quotas._quotas) <= 1024 and entered(quotas) is stays


def test_payloads_are_as_large_as_the_configuration_says() -> None:
    config = RunConfig.model_validate(
        {"model": {"width": 64, "sequence": 32}, "batch": {"microbatch": 2}}
    )
    sizes = payloads_of(config)
    targets, activations = 2 * 32 * 8 + TAG_BYTES, 2 * 32 * 64 * 4
    assert (sizes[Forward], sizes[Backward]) == (activations + targets, activations)
    own = config.model_copy(update={"model": config.model.model_copy(update={"kind": "a:b"})})
    assert Forward not in payloads_of(own) and Part in payloads_of(own)
    limits = Limits.of(256 << 20, payloads_of(own))
    assert limits.payload_bytes[Forward] == 256 << 20
    assert Accepted(Work(MicrobatchId(1, 1), 1), 0, 0).__class__ not in limits.payload_bytes


def test_the_smallest_messages_that_a_configuration_may_ask_for_are_large_enough() -> None:
    """A run with smaller ones came to a stop at its first reduce."""
    links = {"max_message_bytes": LEAST_MESSAGE_BYTES}
    config = RunConfig.model_validate({"links": links})
    sizes = payloads_of(config)
    assert max(sizes[kind] for kind in (Part, StateChunk, Probe, Probed)) <= LEAST_MESSAGE_BYTES
    assert sizes[Forward] <= config.frame_bytes


# ---------------------------------------------------------------------- addresses

PUBLIC = Reach(["0.0.0.0", "8.8.4.4", "127.0.0.1"])
HERE = Reach(["127.0.0.1"])
AT_HOME = Reach(["127.0.0.1", "192.168.1.5"])  # joined there, say

NOWHERE = [
    "169.254.169.254", "224.0.0.1", "239.255.255.250", "255.255.255.255", "0.0.0.0", "::",
    "203.0.113.5", "192.0.2.1", "198.51.100.1", "2001:db8::1", "fe80::1", "fe80::1%lo", "ff02::1",
    "240.0.0.1", "2002:7f00:1::1", "64:ff9b::7f00:1", "::127.0.0.1", "fec0::1", "10.0.0.1",
    "172.17.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1", "localhost", "",
]  # fmt: skip


@pytest.mark.parametrize("host", NOWHERE)
def test_addresses_that_nobody_is_dialed_at(host: str) -> None:
    """Hole: one record made two processes dial a port of loopback 16 times."""
    assert not any(reach.allows(host) for reach in (PUBLIC, HERE, AT_HOME))


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_dialed_by_all(host: str) -> None:
    assert all(reach.allows(host) for reach in (PUBLIC, HERE, AT_HOME))


def test_loopback_is_for_swarms_of_one_machine() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert HERE.allows(host) and not PUBLIC.allows(host) and not AT_HOME.allows(host)


def test_private_networks_are_for_who_is_in_one() -> None:
    assert AT_HOME.allows("192.168.7.7") and not PUBLIC.allows("192.168.7.7")
    assert Reach(["fd00::7"]).allows("fd00::1") and not AT_HOME.allows("fd00::1")


def test_announced_addresses_are_few_and_short() -> None:
    addresses = ["8.8.8.8:1", "127.0.0.1:22", "example.org:1", "8.8.8.8:1" + " " * 99]
    assert PUBLIC.direct(addresses * 20) == ["8.8.8.8:1"] * 8
    assert PUBLIC.direct(["[2606:4700::1111]:1"]) == ["[2606:4700::1111]:1"]


def test_multiaddrs_name_numbers_only() -> None:
    relay = "/ip4/8.8.8.8/tcp/1/p2p/" + "Q" * 46 + "/p2p-circuit/p2p/" + "Q" * 46
    good = ["/ip4/8.8.8.8/tcp/1/p2p/Qm", "/ip6/2606:4700::1111/udp/1/quic", relay]
    bad = [
        "/dns4/example.org/tcp/1", "/dnsaddr/example.org", "/unix/tmp/x", "/ip4/127.0.0.1/tcp/22",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip4/8.8.8.8/tcp/1/dns4/example.org/tcp/1", "", "/",
        "/ip4/8.8.8.8/tcp/1/p2p/Qm/p2p-circuit/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8" + "/x" * 99,
    ]  # fmt: skip
    assert PUBLIC.multiaddrs(good) == good and not PUBLIC.multiaddrs(bad)


# ---------------------------------------------------------------------- the log


def test_log_tells_how_many_lines_it_spared() -> None:
    sparing, said = Sparing(most=3, window_s=60), []

    def say(at: float, text: str, *args: object) -> None:
        record = logging.LogRecord("x", logging.INFO, "f", 1, text, args, None)
        record.created = at
        if sparing.filter(record):
            said.append(record.getMessage())

    for number in range(1431):
        say(number / 100, "the link to %s broke", number)
    say(5.0, "something else")
    say(61.0, "the link to %s broke", "Z")
    say(62.0, "the link to %s broke", "Y")
    assert said == [
        "the link to 0 broke",
        "the link to 1 broke",
        "the link to 2 broke",
        "something else",
        "the link to Z broke (and 1,428 more like it before)",
        "the link to Y broke",
    ]
