"""Links among people who want no good: real sockets, and what they can take."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import torch

from swarmrt.ids import BETWEEN_PROCESSES, PeerId, Seats
from swarmrt.messages import Beacon, Finish, Message, Probe
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.access.identity import Identity, open_identity
from swarmrt.runtime.carriers.beacons import Beacons
from swarmrt.runtime.carriers.certificates import make_contexts
from swarmrt.runtime.carriers.direct import MAX_GREETINGS, DirectCarrier
from swarmrt.runtime.limits.quotas import UNBOUNDED, Quotas
from swarmrt.runtime.limits.rates import Rate
from swarmrt.runtime.links import open_links
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.process.vitals import resident_bytes
from swarmrt.runtime.reach.addresses import Reach, parse_address
from swarmrt.wire.datagrams import Key
from swarmrt.wire.kinds import CHUNK, Hello
from swarmrt.wire.limits import Limits
from swarmrt.wire.versions import SPEAKS
from swarmrt.wire.writing import FrameWriter, encode
from tests.runtime.carriers.test_beacons import HERE, THERE, beacon
from tests.runtime.links.test_links import hello, run, until
from tests.wire.test_frames import frame
from tests.wire.test_memory import MIB, PART, announced
from tests.wire.test_other_ages import unknown

RUN = "test"
LARGEST = 256 * MIB


class SomeKnown(UnguardedDoor):
    """The door of a process that knows some peers; others may probe. Without names, all."""

    def __init__(self, known: Collection[PeerId] | None) -> None:
        super().__init__(RUN)
        self.known = known
        self.refused: Counter[str] = Counter()

    def is_known(self, peer: PeerId) -> bool:
        return self.known is None or peer in self.known

    def may_say(self, peer: PeerId, kind: type[Message], seats: Seats = BETWEEN_PROCESSES) -> bool:
        may = self.is_known(peer) or kind is Probe
        self.refused[kind.__name__] += not may
        return may


class Victim:
    """A process with direct links only, and what has come in. Without `known` everybody is."""

    def __init__(
        self,
        identity: Identity,
        known: Collection[PeerId] | None = None,
        pace: Rate = UNBOUNDED,
        reach: Reach | None = None,
    ) -> None:
        self.me = identity.peer_id
        self.got: list[Message] = []
        self.lost: list[tuple[PeerId, str]] = []
        self.failed: list[Message] = []
        self.door = SomeKnown(known)
        self.quotas = Quotas(Limits.of(LARGEST), 4, pace, door=self.door)
        self.carrier = DirectCarrier(identity, refused=self.quotas.refused)
        self.links = Links(
            [self.carrier],
            self.door,
            LARGEST,
            on_message=lambda peer, message, tensors: self.got.append(message),
            on_lost=lambda peer, reason: self.lost.append((peer, reason)),
            on_send_failed=lambda peer, message: self.failed.append(message),
            quotas=self.quotas,
            streams=4,
            reach=reach,
        )

    @property
    def address(self) -> tuple[str, int]:
        return parse_address(self.links.addresses("direct")[0])


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder: Path = tmp_path_factory.mktemp("identities")
    return [open_identity(folder / str(number)) for number in range(5)]


@asynccontextmanager
async def started(*victims: Victim) -> AsyncIterator[None]:
    for victim in victims:
        await victim.links.start()
    try:
        yield
    finally:
        for victim in victims:
            await victim.links.close()


class Attacker:
    """Writes what it likes on a connection that proves who it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, victim: Victim, identity: Identity, first: bytes = b"") -> Attacker:
        tls = make_contexts(identity).dialing
        reader, writer = await asyncio.open_connection(*victim.address, ssl=tls)
        writer.write(first)
        return cls(reader, writer)

    async def is_thrown_out(self) -> None:
        """Wait for it."""
        async with asyncio.timeout(30):
            with suppress(OSError):
                while await self.reader.read(1 << 16):
                    pass
        self.writer.close()


# ---------------------------------------------------------------------- memory


def test_payloads_before_hello_are_refused(identities: list[Identity]) -> None:
    """Hole: 864 bytes before any hello, and 3.6 GiB were gone."""

    async def story() -> None:
        victim = Victim(identities[0])
        async with started(victim):
            before = resident_bytes() or 0
            for _ in range(8):
                attacker = await Attacker.dial(victim, identities[1], announced(LARGEST))
                await attacker.is_thrown_out()
            assert victim.quotas.budget.held_bytes == 0
            assert (resident_bytes() or 0) - before < 64 * MIB

    run(story())


def test_payloads_that_never_come_cost_little_and_end(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        victim = Victim(identities[0])
        async with started(victim):
            before = resident_bytes() or 0
            huge = hello() + announced(LARGEST, 2) + announced(LARGEST, 3)
            attackers = [await Attacker.dial(victim, identities[1], huge) for _ in range(8)]
            budget = victim.quotas.budget
            await until(lambda: budget.held_bytes == 16 * 2 * MIB)
            assert (resident_bytes() or 0) - before < 128 * MIB
            for attacker in attackers:
                attacker.writer.close()
            await until(lambda: budget.held_bytes == 0 and not len(victim.links._links))

    run(story())


def test_unfinished_message_without_a_byte_more_ends_its_link(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_links.LOOK_S * open_links.QUIET_LOOKS == 10  # a radio may be silent for five
    monkeypatch.setattr(open_links, "LOOK_S", 0.05)

    async def story() -> None:
        victim = Victim(identities[0])
        async with started(victim):
            unfinished = hello() + announced(MIB, 2)
            silent = await Attacker.dial(victim, identities[1], unfinished)
            quiet = await Attacker.dial(victim, identities[2], hello())  # owes nothing
            await silent.is_thrown_out()
            assert victim.quotas.refused["unfinished"] == 1
            assert [peer for peer, _ in victim.lost] == [identities[1].peer_id]
            slow = await Attacker.dial(victim, identities[3], unfinished)
            for _ in range(3 * open_links.QUIET_LOOKS):  # some bytes, and then none for a while
                await asyncio.sleep(0.05)
                slow.writer.write(frame(CHUNK, b"", bytes(16 << 10), number=2))
            for _ in range(3):
                slow.writer.write(frame(CHUNK, b"", bytes(256 << 10), number=2))
            await until(lambda: victim.got == [PART])
            quiet.writer.close()
            slow.writer.close()

    run(story())


def test_share_of_one_peer_is_bounded_over_all_its_links(identities: list[Identity]) -> None:
    async def story() -> None:
        victim = Victim(identities[0])
        victim.quotas._share_bytes = 8 * MIB
        async with started(victim):
            chunks = b"".join(frame(CHUNK, b"", bytes(256 << 10), 2) for _ in range(20))
            opening = hello() + announced(LARGEST, 2) + chunks
            first = await Attacker.dial(victim, identities[1], opening)
            await until(lambda: victim.quotas.budget.held_bytes > 5 * MIB)
            second = await Attacker.dial(victim, identities[1], opening)
            await second.is_thrown_out()
            assert victim.quotas.budget.held_bytes <= 8 * MIB
            first.writer.close()
            await until(lambda: victim.quotas.budget.held_bytes == 0)

    run(story())


def test_honest_peer_goes_on_while_another_hoards(identities: list[Identity]) -> None:
    async def story() -> None:
        victim, honest = Victim(identities[0]), Victim(identities[1])
        victim.quotas.budget.most_bytes = 16 * MIB
        async with started(victim, honest):
            hoarders = []
            for number in (2, 3):
                chunks = b"".join(frame(CHUNK, b"", bytes(256 << 10), 2) for _ in range(27))
                opening = hello() + announced(LARGEST, 2) + chunks
                hoarders.append(await Attacker.dial(victim, identities[number], opening))
            await until(lambda: victim.quotas.budget.held_bytes == 16 * MIB)
            honest.links.know(victim.me, {"direct": victim.links.addresses("direct")})
            payload = torch.arange(5 * MIB, dtype=torch.uint8)
            honest.links.send(victim.me, PART, [payload])
            await until(lambda: victim.got == [PART])
            assert victim.quotas.refused["memory"] >= 1 and not honest.lost
            for hoarder in hoarders:
                hoarder.writer.close()

    run(story())


# ---------------------------------------------------------------------- places


def test_silent_connections_keep_nobody_out(identities: list[Identity]) -> None:
    """Hole: 256 silent TCP connections, and honest dials failed after ten seconds each."""

    async def story() -> None:
        victim, honest = Victim(identities[0]), Victim(identities[1])
        async with started(victim, honest):
            silent, oldest = [], None
            for _ in range(4 * MAX_GREETINGS):
                reader, writer = await asyncio.open_connection(*victim.address)
                silent.append(writer)
                oldest = oldest or reader
            await until(lambda: victim.quotas.refused["handshakes"] >= 3 * MAX_GREETINGS)
            assert len(victim.carrier._greetings) == MAX_GREETINGS
            honest.links.know(victim.me, {"direct": victim.links.addresses("direct")})
            honest.links.send(victim.me, Finish("I am here"))
            await until(lambda: victim.got or honest.failed)
            assert victim.got == [Finish("I am here")]
            assert len(victim.carrier._tasks) <= MAX_GREETINGS + 1  # and the one that accepts
            assert oldest is not None
            async with asyncio.timeout(30):
                with suppress(ConnectionResetError):  # as good as an end
                    assert not await oldest.read()
            for writer in silent:
                writer.close()

    run(story())


def test_many_processes_of_one_machine_come_in_at_once(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of loopback is one source; there are more of them than handshakes at a time."""
    monkeypatch.setattr(open_links, "MAX_INCOMING", 100)

    async def story() -> None:
        victim = Victim(identities[0])
        dialers = [Victim(identities[1 + number % 4]) for number in range(100)]
        async with started(victim):
            for number, dialer in enumerate(dialers):
                dialer.links.know(victim.me, {"direct": victim.links.addresses("direct")})
                dialer.links.send(victim.me, Finish(str(number)))
            await until(lambda: len(victim.got) == 100 or any(d.failed for d in dialers))
            assert len(victim.got) == 100
            for dialer in dialers:
                await dialer.links.close()

    run(story())


def test_strangers_share_few_places_and_members_have_their_own(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_links, "MAX_STRANGERS", 2)

    async def story() -> None:
        victim = Victim(identities[0], known=[identities[4].peer_id])
        async with started(victim):
            member = await Attacker.dial(victim, identities[4], hello())
            first = await Attacker.dial(victim, identities[1], hello())
            await until(lambda: len(victim.links._links) == 2)
            same = [await Attacker.dial(victim, identities[1]) for _ in range(2)]
            await same[1].is_thrown_out()  # one stranger has two places at most
            for number in (2, 3):
                await Attacker.dial(victim, identities[number], hello())
            await first.is_thrown_out()  # the newest takes the place of the oldest
            assert victim.quotas.refused["links"] == 2
            beacons = FrameWriter()
            beacons.push(encode(beacon(1)))
            member.writer.writelines(beacons.next_frames())
            await until(lambda: victim.got == [beacon(1)])

    run(story())


def test_who_has_not_said_hello_waits_among_many(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_links, "MAX_WAITING", 2)

    async def story() -> None:
        victim = Victim(identities[0], known=[])
        async with started(victim):
            first = await Attacker.dial(victim, identities[1])
            await until(lambda: len(victim.links._links) == 1)
            greeted = await Attacker.dial(victim, identities[2], hello())
            await until(lambda: any(link.greeted for link in victim.links._links))
            for number in (3, 4):
                await Attacker.dial(victim, identities[number])
            await first.is_thrown_out()
            assert any(link.greeted for link in victim.links._links)
            greeted.writer.close()

    run(story())


def test_idle_strangers_go(identities: list[Identity], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_links, "LOOK_S", 0.05)

    async def story() -> None:
        victim = Victim(identities[0], known=[])
        async with started(victim):
            stranger = await Attacker.dial(victim, identities[1], hello())
            await stranger.is_thrown_out()
            assert not len(victim.links._links)

    run(story())


# ---------------------------------------------------------------------- messages


def test_what_strangers_say_reaches_nobody(identities: list[Identity]) -> None:
    """Hole: 185,000 beacons of a stranger made the log of a peer 81 MB longer."""

    async def story() -> None:
        victim = Victim(identities[0], known=[])
        async with started(victim):
            frames = FrameWriter()
            for number in range(50_000):
                frames.push(encode(beacon(number)))
            said = bytearray(hello())
            while len(frames):
                said += b"".join(frames.next_frames())
            stranger = await Attacker.dial(victim, identities[1], bytes(said))
            await stranger.is_thrown_out()
            assert not victim.got and not victim.lost
            assert 1 <= victim.door.refused["Beacon"] <= 64

    run(story())


def test_member_is_missed_also_when_it_is_one_no_more(identities: list[Identity]) -> None:
    async def story() -> None:
        known = {identities[1].peer_id}
        victim = Victim(identities[0], known=known)
        async with started(victim):
            member = await Attacker.dial(victim, identities[1], hello())
            await until(lambda: any(link.greeted for link in victim.links._links))
            known.clear()
            member.writer.close()
            await until(lambda: victim.lost)

    run(story())


def test_member_that_floods_loses_its_link(identities: list[Identity]) -> None:
    async def story() -> None:
        victim = Victim(identities[0], pace=Rate(1000, 0))
        async with started(victim):
            frames = FrameWriter()
            for number in range(5_000):
                frames.push(encode(beacon(number)))
            said = bytearray(hello())
            while len(frames):
                said += b"".join(frames.next_frames())
            member = await Attacker.dial(victim, identities[1], bytes(said))
            await member.is_thrown_out()
            assert len(victim.got) == 1000
            [(_, reason)] = victim.lost
            assert "more than 0 messages a second" in reason

    run(story())


def test_what_nobody_knows_is_no_greeting_and_counts_as_much_as_the_rest(
    identities: list[Identity],
) -> None:
    async def story() -> None:
        victim = Victim(identities[0], pace=Rate(1000, 0))
        async with started(victim):
            nobody = await Attacker.dial(victim, identities[1], unknown(0) + hello())
            await nobody.is_thrown_out()
            assert not victim.links.peers()
            flood = b"".join(unknown(16, number) for number in range(5_000))
            member = await Attacker.dial(victim, identities[2], hello() + flood)
            await member.is_thrown_out()
            assert victim.quotas.refused["unknown kinds"] == 1000
            assert victim.quotas.budget.held_bytes == 0 and not victim.got

    run(story())


# ---------------------------------------------------------------------- the way out


def test_addresses_of_others_do_not_make_a_process_dial_its_neighbours(
    identities: list[Identity],
) -> None:
    """Hole: a record that names a port of loopback, and two processes dial it 16 times."""

    async def story() -> None:
        dialed: list[object] = []

        def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialed.append(writer)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        public = Victim(identities[0], reach=Reach(["0.0.0.0", "8.8.8.8"]))
        here = Victim(identities[1], reach=Reach(["127.0.0.1"]))
        async with started(public, here):
            for victim in (public, here):
                victim.links.know(identities[2].peer_id, {"direct": [target, "10.0.0.1:22"]})
                victim.links.send(identities[2].peer_id, Finish("hello"))
                await until(lambda: victim.failed)  # noqa: B023 - awaited at once
                assert bool(dialed) == (victim is here)
            assert public.quotas.refused["addresses"] == 2
            assert here.quotas.refused["addresses"] == 1
        server.close()
        await server.wait_closed()

    run(story())


def test_hello_sends_no_datagrams_to_third_parties() -> None:
    async def story() -> None:
        here = Beacons(["127.0.0.1"], [], lambda *_: None, reach=Reach(["8.8.8.8"]))
        await here.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
            third.bind(("127.0.0.1", 0))
            third.setblocking(False)
            at = f"127.0.0.1:{third.getsockname()[1]}"
            names = Hello(*SPEAKS, RUN, Key.new().secret.hex(), (at, "239.1.1.1:9"), "", "")
            agreement = here.offer(THERE)
            here.agree(agreement, names, "192.0.2.1")
            assert not agreement.addresses
            here.send(THERE, beacon(1))
            here.forget(agreement)
            here.agree(here.offer(THERE), names, "127.0.0.1")  # where the link comes from
            here.send(THERE, beacon(2))
            await until(lambda: not here._outgoing.qsize())
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(30):
                assert await loop.sock_recv(third, 2000)
            with pytest.raises(BlockingIOError):
                third.recv(2000)
        await here.close()

    run(story())


def test_where_nobody_answers_few_datagrams_are_sent() -> None:
    async def story() -> None:
        here = Beacons(["127.0.0.1"], [], lambda *_: None)
        hello_of_one = Hello(*SPEAKS, RUN, Key.new().secret.hex(), ("127.0.0.1:9",), "", "")
        here.agree(here.offer(THERE), hello_of_one)
        for number in range(176):
            assert not here.send(THERE, beacon(number))
        assert here._outgoing.qsize() == 14 + 11  # until it is hopeless, and then each 16th
        assert not here.send(HERE, beacon(1))

    run(story())


def test_floods_of_datagrams_are_passed_over() -> None:
    async def story() -> None:
        got: list[Message] = []
        there = Beacons(["127.0.0.1"], [], lambda peer, message, _: got.append(message))
        agreement = there.offer(HERE)
        for counter in range(1, 100):  # who has not said hello yet says nothing
            there._received(agreement.ours.seal(counter, beacon(counter)), ("127.0.0.1", 9))
        assert not got
        there.agree(agreement, Hello(*SPEAKS, RUN, "", (), "", ""))
        for counter in range(100, 1100):
            there._received(agreement.ours.seal(counter, beacon(counter)), ("127.0.0.1", 9))
        assert 64 <= len(got) < 200 and all(isinstance(message, Beacon) for message in got)
        assert there._refused["datagrams"] == 1000 - len(got)

    run(story())
