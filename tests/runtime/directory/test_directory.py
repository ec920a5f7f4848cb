"""The directory with real nodes: what it keeps, and what nobody can do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hivemind.dht.crypto import RSASignatureValidator
from hivemind.dht.routing import DHTID
from hivemind.utils.timed_storage import get_dht_time

from swarmrt.errors import DirectoryError, UsageError
from swarmrt.runtime.daemon import answering
from swarmrt.runtime.directory import directory as directory_module
from swarmrt.runtime.directory.directory import Directory
from swarmrt.runtime.directory.looking_up import find_run, published_run
from swarmrt.runtime.directory.network import Network, open_network
from swarmrt.runtime.directory.records import MAX_RECORDS, PeerRecord, RunRecord, stage_key
from tests.papers import Owner
from tests.runtime.links.test_links import run, until


@asynccontextmanager
async def two_nodes(owner: Owner, *, private: bool = False) -> AsyncIterator[tuple[Network, ...]]:
    """Two members' nodes of a run."""
    async with open_network([], papers=owner.node(), private=private) as first:
        at = first.daemon.addresses()
        async with open_network(at, papers=owner.guest(), private=private) as second:
            yield first, second


def record(owner: Owner, network: Network, **changes: object) -> PeerRecord:
    peer = network.me
    values: dict[str, object] = {
        "run": str(owner.run), "stage": 1, "peer": peer, "status": "serving", "version": 3,
        "membership": owner.signer.membership(peer, (1,), time.time() + 600), "life_s": 30.0,
        "addresses": network.daemon.addresses(),
    }  # fmt: skip
    return PeerRecord.model_validate(values | changes)


def published(owner: Owner, network: Network, epoch: int = 2) -> tuple[str, str]:
    """The run's record, and what replaces it."""
    until, config = time.time() + 30, {"run": {"steps": 3}}

    def make(addresses: list[str]) -> str:
        return owner.signer.published(network.me, epoch, config, addresses, [], until)

    return make(network.daemon.addresses()), make([])


async def store(network: Network, key: str, value: object, **how: Any) -> bool:
    """As somebody would who has only hivemind."""
    expires_at = how.pop("expires_at", get_dht_time() + 60)
    stored: bool = await network.directory._node.store(key, value, expires_at, **how)
    return stored


def mark(network: Network) -> bytes:
    """The subkey of whoever signs with this process's key."""
    return bytes(RSASignatureValidator(network.daemon.identity.private_key).local_public_key)


def test_run_and_peers_are_seen_by_others() -> None:
    async def story() -> None:
        owner, stranger = Owner(), Owner()
        async with two_nodes(owner) as (first, second):
            await first.directory.publish_run(owner.run, *published(owner, first), ttl_s=30)
            found = await second.directory.find_run(owner.run)
            assert found is not None and (found.trainer, found.epoch) == (first.me, 2)
            assert await second.directory.find_run(stranger.run) is None
            for network in (first, second):
                await network.directory.announce(owner.run, record(owner, network), ttl_s=30)
            for network in (first, second):
                seen = await network.directory.peers(owner.run, 1)
                assert {one.peer for one in seen} == {first.me, second.me}
            await second.directory.withdraw()
            await first.directory.withdraw()
            assert await first.directory.peers(owner.run, 1) == []
            assert await second.directory.find_run(owner.run) is None

    run(story())


def test_peer_that_does_not_renew_its_record_is_gone_whatever_the_clocks_say() -> None:
    async def story() -> None:
        owner = Owner()
        async with two_nodes(owner) as (first, second):
            await second.directory.announce(owner.run, record(owner, second, life_s=1.5), ttl_s=1.5)
            assert await first.directory.peers(owner.run, 1)
            await asyncio.sleep(2.0)  # records live by the clock
            assert await first.directory.peers(owner.run, 1) == []

    run(story())


def test_only_members_announce_and_only_for_themselves_and_their_stages() -> None:
    async def story() -> None:
        owner, other = Owner(), Owner()
        async with two_nodes(owner) as (first, second):
            until = time.time() + 600
            wrong: list[dict[str, object]] = [
                {"peer": first.me},
                {"membership": ""},
                {"membership": owner.signer.membership(second.me, (0, 2), until)},
                {"membership": owner.signer.membership(first.me, (1,), until)},
                {"membership": owner.signer.membership(second.me, (1,), time.time() - 600)},
                {"membership": other.signer.membership(second.me, (1,), until)},
                {"membership": owner.invite.pass_for(owner.run, second.me, time.time())},
                {"membership": owner.signer.helm(second.me, until)},
            ]
            for changes in wrong:
                await second.directory.announce(owner.run, record(owner, second, **changes), 30)
                assert await first.directory.peers(owner.run, 1) == [], changes

    run(story())


def test_nobody_takes_a_run_over_or_its_name_away() -> None:
    """A stranger's record is not one of lower rank: it is none of this run."""

    async def story() -> None:
        owner, stranger = Owner(), Owner()
        async with two_nodes(owner) as (first, second):
            await first.directory.publish_run(owner.run, *published(owner, first), ttl_s=30)
            forged, _ = published(stranger, second, epoch=10**9)
            stolen, _ = published(owner, first, epoch=10**6)
            for token in (forged, stolen):
                value = RunRecord(run=str(owner.run), published=token).model_dump()
                key = f"swarmrt/{owner.run}"
                assert not await store(second, key, value, subkey=mark(second))
            found = await second.directory.find_run(owner.run)
            assert found is not None and found.epoch == 2

    run(story())


def test_directory_is_not_bloated() -> None:
    """Other keys, other runs, large values, many subkeys: no node keeps any of them."""

    async def story() -> None:
        owner, other = Owner(), Owner()
        async with open_network([]) as anyone, open_network([], papers=owner.node()) as member:
            key = stage_key(owner.run, 1)
            good = record(owner, member).model_dump()
            for node in (anyone, member):
                how = {"subkey": mark(node)}
                mine = record(owner, node).model_dump()
                assert not await store(node, key, "x" * 1_000_000, **how)
                assert not await store(node, key, {**mine, "addresses": ["x" * 193]}, **how)
                assert not await store(node, "swarmrt/made-up", mine, **how)
                assert not await store(node, key, mine, subkey=mark(node) + b"2")
                assert not await store(node, key, mine, subkey=b"x" + mark(node))
                assert not await store(node, key, mine, subkey="nobody")
                assert not await store(node, key, "nobody's")
                assert not await store(node, key, mine, expires_at=get_dht_time() + 7200, **how)
                assert await store(node, key, mine, **how)
            foreign = record(other, member).model_dump()
            assert not await store(member, stage_key(other.run, 1), foreign, subkey=mark(member))
            assert good["peer"] == member.me

    run(story())


def test_a_node_of_no_run_keeps_so_many_records_and_no_more() -> None:
    async def story() -> None:
        owner = Owner()
        async with open_network([]) as anyone:
            records = anyone.directory._records
            now = get_dht_time()
            for number in range(MAX_RECORDS):
                place = (DHTID.generate(number).to_bytes(), b"x")
                records._kept.setdefault(owner.run, {})[place] = now + 600
            mine = record(owner, anyone).model_dump()
            key, how = stage_key(owner.run, 1), {"subkey": mark(anyone)}
            assert not await store(anyone, key, mine, **how)
            records._kept[owner.run][(DHTID.generate(0).to_bytes(), b"x")] = now - 1
            assert await store(anyone, key, mine, **how)

    run(story())


def test_run_begun_anew_under_its_name_is_newer_than_any_epoch_of_the_old_one() -> None:
    async def story() -> None:
        owner = Owner()
        async with two_nodes(owner) as (first, second):
            for network, born, epoch in [(first, 1000, 7), (second, 2000, 1)]:
                at, until = network.daemon.addresses(), time.time() + 30
                token = owner.signer.published(network.me, epoch, {}, at, [], until, born)
                await network.directory.publish_run(owner.run, token, token, ttl_s=30)
            find = partial(find_run, second.directory, owner.run, wait=False)
            assert (await find(newer_than=(1000, 7))).age == (2000, 1)
            with pytest.raises(DirectoryError, match="knows no run"):
                await find(newer_than=(2000, 2))

    run(story())


class Careless(Directory):
    """A dishonest node: it keeps whatever it is given."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory._daemon, directory._node, directory._records)
        directory._node.protocol.record_validator = None


def test_one_bad_record_hides_no_good_one() -> None:
    async def story() -> None:
        owner = Owner()
        async with two_nodes(owner) as (first, second):
            key = stage_key(owner.run, 1)
            await first.directory.announce(owner.run, record(owner, first), ttl_s=30)
            Careless(second.directory)
            ahead = get_dht_time() + 10**6
            for subkey, value in [(mark(first), "stolen"), ("mine", 1), (mark(second), b"\xff")]:
                await store(second, key, value, subkey=subkey, expires_at=ahead)
            for node in (first, second):
                held = second.directory._node.protocol.storage.get(DHTID.generate(key))
                assert held is not None and len(held.value.data) >= 2  # the bad ones are there
                if node is first:
                    seen = await node.directory.peers(owner.run, 1)
                    assert [one.peer for one in seen] == [first.me]

    run(story())


def clock_ahead_by(seconds: float) -> float:
    return float(get_dht_time()) + seconds


def test_reader_whose_clock_is_behind_sees_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record at the very end of what may live hides nothing from a clock that is off."""

    async def story() -> None:
        owner = Owner()
        async with two_nodes(owner) as (first, second):
            await first.directory.publish_run(owner.run, *published(owner, first), ttl_s=30)
            await first.directory.announce(owner.run, record(owner, first), ttl_s=30)
            trap = record(owner, second).model_dump()
            how = {"subkey": mark(second), "expires_at": get_dht_time() + 3659}
            assert await store(second, stage_key(owner.run, 1), trap, **how)
            for offset_s in (-50.0, 50.0):
                clock = partial(clock_ahead_by, offset_s)
                with monkeypatch.context() as shifted:
                    shifted.setattr("swarmrt.runtime.directory.records.get_dht_time", clock)
                    assert await second.directory.find_run(owner.run) is not None
                    seen = await second.directory.peers(owner.run, 1)
                    assert first.me in {one.peer for one in seen}

    run(story())


def test_private_directory_answers_nobody_who_was_not_invited() -> None:
    async def story() -> None:
        owner, stranger = Owner(), Owner()
        async with two_nodes(owner, private=True) as (first, second):
            at = first.daemon.addresses()
            await first.directory.publish_run(owner.run, *published(owner, first), ttl_s=30)
            assert await second.directory.find_run(owner.run) is not None
            with pytest.raises(DirectoryError, match="is your invitation still good"):
                papers = stranger.guest()
                papers.run = owner.run
                async with open_network(at, papers=papers, private=True):
                    pass
            async with open_network([]) as outsider:
                await outsider.daemon.connect(first.me, at)
                node = outsider.directory._node
                peer = first.daemon.p2p.peer_id
                key = DHTID.generate(source=f"swarmrt/{owner.run}")
                assert await node.protocol.call_ping(peer) is None
                assert await node.protocol.call_find(peer, [key]) is None
                assert await outsider.directory.find_run(owner.run) is None
            asking = second.directory._node.protocol
            assert await asking.call_find(peer, [key]) is not None
            first.barred.add(second.me)  # turned out
            assert await asking.call_find(peer, [key]) is None

    run(story())


def test_who_waits_for_a_run_that_nobody_publishes_is_told_at_once() -> None:
    async def story() -> None:
        owner, told = Owner(), asyncio.Queue[str]()
        async with open_network([], papers=owner.node()) as network:
            looking = find_run(network.directory, owner.run, wait=True, say=told.put_nowait)
            waiting = asyncio.create_task(looking)
            said = await told.get()
            assert f"waiting for run {owner.run}: the directory knows no run" in said
            await network.directory.publish_run(owner.run, *published(owner, network), ttl_s=30)
            assert (await waiting).trainer == network.me
            assert told.empty(), "not more often than each half minute"

    run(story())


def test_a_long_path_for_temporary_files_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of 104 characters."""
    folder = tmp_path / ("x" * (103 - len(str(tmp_path))))
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    async def story() -> None:
        async with open_network([]) as network:
            assert network.daemon.addresses()

    run(story())


def test_record_that_is_too_large_is_an_error_for_people() -> None:
    async def story() -> None:
        owner = Owner()
        async with open_network([], papers=owner.node()) as network:
            with pytest.raises(UsageError, match="shorten model.options"):
                await network.directory.publish_run(owner.run, "x" * 20_000, "", ttl_s=30)

    run(story())


def test_daemon_that_hangs_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands still: what it is asked has a deadline and a reason, and then it is back."""
    monkeypatch.setattr(answering, "ANSWER_S", 0.5)
    monkeypatch.setattr(answering, "EVERY_S", 0.1)

    async def story() -> None:
        owner = Owner()
        async with open_network([], papers=owner.node()) as first:
            at = first.daemon.addresses()
            async with open_network(at, papers=owner.guest()) as network:
                token = owner.signer.published(network.me, 1, {}, at, [], time.time() + 30)
                publish = partial(network.directory.publish_run, owner.run, token, token, 30)
                monkeypatch.setattr(directory_module, "ANSWER_S", 10.0)
                while await published_run(first.directory, owner.run) is None:
                    await publish()  # until the other node is known as one to store at
                monkeypatch.setattr(directory_module, "ANSWER_S", 0.5)
                watch = asyncio.create_task(network.daemon.watch())
                network.daemon.stand_still(4.0)
                with pytest.raises(DirectoryError, match="did not take"):
                    await publish()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await network.daemon.connect(first.me, at)
                assert await published_run(network.directory, Owner().run) is None
                assert "looking for run" in caplog.text
                await until(lambda: "answers again" in caplog.text)
                monkeypatch.setattr(directory_module, "ANSWER_S", 10.0)
                assert "the libp2p daemon of this process has not answered" in caplog.text
                await publish()
                assert not watch.done()
                watch.cancel()

    run(story())
