"""Getting a snapshot from donors, in one process: who gives what, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
import torch

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.kernels.digest import digest
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.model.layout import Layout
from swarmrt.model.sizing import MOST_SNAPSHOTS
from swarmrt.runtime.state.fetching import Fetches, Wanted
from swarmrt.runtime.state.offering import CHUNK_BYTES, MOST_TIMES, Shelf
from swarmrt.runtime.state.snapshot import Snapshot, digest_of, read_snapshot, write_snapshot
from swarmrt.scheduler.fetching import donors as patience
from swarmrt.scheduler.fetching.donors import MISSES
from swarmrt.scheduler.fetching.events import DonorLost, FetchBegan, FileChecked
from swarmrt.scheduler.recording import FetchRecord, Header, of_json, replay, to_json
from tests.scheduler.peer_core import Peer

HEADER = Header(Peer().core.seat.settings)
ME = PeerId("me")
SIZE = int(2.5 * CHUNK_BYTES / 4)
LAYOUT = Layout(0, {"values": torch.empty(SIZE, device="meta")}, ("values",))


def snapshot(fill: float = 1.0, size: int = SIZE, version: int = 3) -> Snapshot:
    data = write_snapshot(0, version, {"values": torch.full((size,), fill)})
    return Snapshot(0, version, data, digest_of(data))


def parameters(fill: float = 1.0) -> str:
    """Their fingerprint."""
    return digest(torch.full((SIZE,), fill))


class Donors:
    """Shelves behind links that deliver at once; some of them misbehave."""

    def __init__(self, shelves: dict[str, Shelf]) -> None:
        self.came_bytes = 0  # of chunks that are not whole, too
        self.records: list[FetchRecord] = []
        self.fetches = Fetches(self.send, lambda donor: self.came_bytes, self.records.append)
        self.asked: list[str] = []
        self.answer_s: dict[str, float] = {}
        self.dead: set[str] = set()
        self.silent: set[str] = set()
        self.chunks: list[int] = []  # offsets of those that were given
        self._shelves = shelves

    def send(self, to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        assert isinstance(message, GetState)
        self.asked.append(to)
        loop = asyncio.get_running_loop()
        if to in self.silent:
            return
        if to in self.dead:
            loop.call_soon(self.fetches.donor_lost, to, "is gone")
        else:
            answer = partial(self._shelves[to].answer, ME, message, self._answer_of(to))
            loop.call_later(self.answer_s.get(to, 0.0), answer)

    def _answer_of(self, donor: PeerId):  # type: ignore[no-untyped-def]
        def answer(to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
            if isinstance(message, NoState):
                self.fetches.refused(donor, message)
            else:
                assert isinstance(message, StateChunk)
                if len(tensors[0]) > 1:
                    self.chunks.append(message.offset_bytes)
                self.fetches.chunk_arrived(donor, message, tensors)

        return answer

    def put(self, name: str, shelf: Shelf) -> None:
        self._shelves[name] = shelf

    async def get(self, its_digest: str = "", version: int = 3) -> Snapshot:
        donors = [PeerId(name) for name in self._shelves]
        self.fetches.turn_to((0, version))
        return await self.fetches.get(Wanted(LAYOUT, version, its_digest), donors)


def shelf(*snapshots: Snapshot) -> Shelf:
    shelf = Shelf()
    for one in snapshots:
        shelf.put(one)
    return shelf


def hurry(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let answers be late after so long."""
    monkeypatch.setattr(patience, "CHUNK_S", seconds)
    monkeypatch.setattr(patience, "OFFER_S", seconds)


def test_a_state_of_thousands_of_tensors_is_got_from_another() -> None:
    """2,000 small linear layers and their optimizer's state: the header alone has 1.2 MB."""
    names = [
        f"{section}.layers.0.linears.{index}.{name}"
        for index in range(2000)
        for section in ("model", "optimizer.exp_avg", "optimizer.exp_avg_sq")
        for name in ("weight", "bias")
    ]
    state = {name: torch.full((4,), 0.5) for name in names}
    layout = Layout(0, {name: torch.empty(4, device="meta") for name in names}, (names[0],))
    data = write_snapshot(0, 3, state)
    donors = Donors({"a": shelf(Snapshot(0, 3, data, digest_of(data)))})

    async def get() -> Snapshot:
        return await donors.fetches.get(Wanted(layout, 3), [PeerId("a")])

    assert read_snapshot(asyncio.run(get()).data, "it").keys() == state.keys()


def test_donors_share_the_chunks() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    got = asyncio.run(donors.get())
    assert got == snapshot() and set(donors.asked) == {"a", "b"}
    assert torch.equal(read_snapshot(got.data, "it")["values"][:2], torch.ones(2))


def test_dying_and_refusing_donors_are_made_up_for() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(), "c": shelf(snapshot())})
    donors.dead.add("c")
    assert asyncio.run(donors.get()) == snapshot()


def test_donor_that_hangs_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 0.01)
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    donors.silent.add("b")
    assert asyncio.run(donors.get()) == snapshot()
    donors.silent.add("a")
    with pytest.raises(RunError, match="has not answered"):
        asyncio.run(donors.get())


def test_what_still_moves_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk takes its link ten times as long as any is expected to."""
    hurry(monkeypatch, 0.05)
    donors = Donors({"a": shelf(snapshot())})
    donors.answer_s["a"] = 0.5

    async def get() -> Snapshot:
        async def move() -> None:
            while True:
                donors.came_bytes += 1
                await asyncio.sleep(0.01)

        moving = asyncio.create_task(move())
        try:
            return await donors.get()
        finally:
            moving.cancel()

    assert asyncio.run(get()) == snapshot()
    chunks = -(-len(snapshot().data) // CHUNK_BYTES)
    votes = donors.asked.count("a") - chunks
    assert votes <= MISSES, "once for each chunk, and for the vote before them"


def test_a_second_fetch_goes_on_where_the_first_one_was_cancelled() -> None:
    """A peer is admitted anew for the same version: two chunks of three are here."""
    donors = Donors({"a": shelf(snapshot())})

    async def story() -> Snapshot:
        first = asyncio.create_task(donors.get())
        while len(donors.chunks) < 2:
            await asyncio.sleep(0)
        donors.silent.add("a")
        await asyncio.sleep(0)
        first.cancel()
        donors.silent.clear()
        return await donors.get(parameters())

    assert asyncio.run(story()) == snapshot()
    assert sorted(donors.chunks) == [0, CHUNK_BYTES, 2 * CHUNK_BYTES]


@pytest.mark.parametrize("others", [1, 2])
def test_what_has_landed_of_a_version_stays_while_another_one_is_begun(others: int) -> None:
    """The trainer and the donor are lost together. The next trainer offers an earlier version; then
    the donor is back. Of three versions only the newest two are kept."""
    donors = Donors({"a": shelf(snapshot())})
    for version in range(others):
        donors.put(f"trainer{version}", shelf(snapshot(version=version)))

    async def begin(version: int) -> None:
        its = len(donors.chunks)
        first = asyncio.create_task(donors.get(version=version))
        while len(donors.chunks) < its + 2:
            await asyncio.sleep(0)
        first.cancel()

    async def story() -> Snapshot:
        for version in (3, *range(others)):
            await begin(version)
        donors.chunks.clear()
        return await donors.get(parameters())

    assert asyncio.run(story()) == snapshot()
    last = 2 * CHUNK_BYTES
    assert set(donors.chunks) == ({last} if others == 1 else {0, CHUNK_BYTES, last})


def test_a_fetch_that_has_failed_goes_on_with_another_donor() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    donors.answer_s["b"] = 60.0  # which is not waited for

    async def story() -> Snapshot:
        wanted = Wanted(LAYOUT, 3)
        first = asyncio.create_task(donors.fetches.get(wanted, [PeerId("a")]))
        while len(donors.chunks) < 2:
            await asyncio.sleep(0)
        refusal = NoState(0, 3, 0)
        donors.fetches.refused(PeerId("a"), refusal)
        with pytest.raises(RunError, match="does not have it"):
            await first
        del donors.answer_s["b"]
        return await donors.fetches.get(wanted, [PeerId("b")])

    assert asyncio.run(story()) == snapshot()
    assert len(donors.chunks) <= 4 and donors.asked.count("b") == 2


def test_what_is_written_down_of_fetches_replays_and_has_none_of_their_bytes() -> None:
    """A donor dies, another gives what it does not name, and what comes first is a liar's."""
    good = snapshot()
    donors = Donors({"liar": shelf(snapshot(2.0)), "a": shelf(good), "b": shelf(good)})
    donors.dead.add("b")

    async def main() -> None:
        await donors.get(parameters())
        donors.fetches.let_go()
        donors.put("c", shelf(good))
        await donors.get()

    asyncio.run(main())
    lines = [to_json(record) for record in donors.records]
    records = [of_json(line) for line in lines]
    assert records == donors.records
    again = [told == record.instructions for record, told in replay(HEADER, donors.records)]
    assert len(again) == len(lines) and all(again)
    kinds = {type(record.event) for record in donors.records}
    assert {FetchBegan, DonorLost, FileChecked} < kinds
    assert max(map(len, lines)) < 1000 and sum(map(len, lines)) < 20_000


def test_another_file_does_not_go_on_with_what_has_landed() -> None:
    """Another epoch has made the same version anew."""
    donors = Donors({"a": shelf(snapshot(2.0))})

    async def story() -> Snapshot:
        first = asyncio.create_task(donors.get())
        while len(donors.chunks) < 2:
            await asyncio.sleep(0)
        first.cancel()
        donors.put("a", shelf(snapshot()))
        return await donors.get(parameters())

    assert asyncio.run(story()) == snapshot()


def test_a_late_chunk_counts_and_its_donor_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both donors are slower than is expected of them: each is asked, and each answers late."""
    hurry(monkeypatch, 0.02)
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    donors.answer_s |= {"a": 0.1, "b": 0.1}
    assert asyncio.run(donors.get()) == snapshot()


def test_most_donors_decide_which_file_it_is() -> None:
    """Also when another one answers first: what is not fingerprinted may differ too."""
    shelves = {"liar": shelf(snapshot(2.0)), "a": shelf(snapshot()), "b": shelf(snapshot())}
    assert asyncio.run(Donors(shelves).get()) == snapshot()


def test_one_that_does_not_answer_holds_up_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    donors.silent.add("b")
    assert asyncio.run(donors.get()) == snapshot()
    assert donors.asked.count("b") == 1


@pytest.mark.parametrize("liars", [1, 3])
def test_file_with_other_parameters_than_agreed_on_is_not_taken(liars: int) -> None:
    shelves = {f"liar{number}": shelf(snapshot(0.125)) for number in range(liars)}
    donors = Donors(shelves | {"honest": shelf(snapshot())})
    assert asyncio.run(donors.get(parameters())) == snapshot()
    assert donors.fetches.distrusted in (set(), set(shelves))


def test_liars_are_asked_again_only_when_there_is_nobody_else() -> None:
    donors = Donors({"liar": shelf(snapshot(0.125))})
    with pytest.raises(RunError, match="other parameters than the swarm has agreed on"):
        asyncio.run(donors.get(parameters()))
    donors = Donors({"liar": shelf(snapshot(0.125)), "honest": shelf(snapshot())})
    donors.fetches.distrusted.add(PeerId("liar"))
    assert asyncio.run(donors.get()) == snapshot() and set(donors.asked) == {"honest"}


def test_file_that_is_not_this_stages_is_not_taken() -> None:
    data = write_snapshot(0, 3, {"valuez": torch.ones(SIZE)})
    other = Snapshot(0, 3, data, digest_of(data))
    with pytest.raises(RunError, match="has not the tensor values"):
        asyncio.run(Donors({"a": shelf(other)}).get())


def test_nobody_has_it() -> None:
    with pytest.raises(RunError, match="there is no other donor"):
        asyncio.run(Donors({"a": shelf(), "b": shelf()}).get())
    with pytest.raises(RunError, match="nobody is known to have"):
        asyncio.run(Donors({}).get())


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 8 * SIZE])
def test_file_of_another_size_is_refused_before_it_is_allocated(size: int) -> None:
    with pytest.raises(RunError, match="bytes, which cannot be it"):
        asyncio.run(Donors({"a": shelf(snapshot(size=size))}).get())


def test_damaged_file_is_found_by_its_digest() -> None:
    good = snapshot()
    bad = Snapshot(0, 3, memoryview(bytearray(good.data[:-1]) + b"\x00"), good.digest)
    with pytest.raises(RunError, match="arrived damaged"):
        asyncio.run(Donors({"a": shelf(bad)}).get())


def test_who_sends_other_bytes_than_it_names_is_done_without() -> None:
    good = snapshot()
    bad = Snapshot(0, 3, memoryview(bytearray(good.data[:-1]) + b"\x00"), good.digest)
    donors = Donors({"liar": shelf(bad), "honest": shelf(good)})
    assert asyncio.run(donors.get()) == good
    donors = Donors({"honest": shelf(good), "liar": shelf(bad)})
    assert asyncio.run(donors.get()) == good


def test_who_asks_gets_a_snapshot_a_few_times_and_no_more() -> None:
    one, given = shelf(snapshot()), list[Message]()
    request = GetState(0, 3, 0, CHUNK_BYTES)
    for _ in range(100):
        one.answer(ME, request, lambda to, message, tensors: given.append(message))
    chunks = sum(isinstance(message, StateChunk) for message in given)
    assert 2.5 * MOST_TIMES <= chunks < 2.5 * MOST_TIMES + 8
    one.answer(PeerId("other"), request, lambda to, message, tensors: given.append(message))
    assert isinstance(given[-1], StateChunk)


def test_one_that_asks_for_what_is_being_written_leaves_room_for_others() -> None:
    one, given = Shelf(), list[tuple[PeerId, Message]]()
    one.promise(0, 3)
    for sender in [PeerId("evil")] * 1000 + [ME]:
        request = GetState(0, 3, 0, CHUNK_BYTES)
        one.answer(sender, request, lambda to, message, tensors: given.append((to, message)))
    one.put(snapshot())
    assert isinstance(given[-1][1], StateChunk) and given[-1][0] == ME


class Minutes:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return 60 * self.now


def at(version: int) -> Snapshot:
    data = write_snapshot(0, version, {"values": torch.zeros(4)})
    return Snapshot(0, version, data, digest_of(data))


def has(shelf: Shelf, version: int) -> bool:
    """Whether a byte of it is given."""
    given: list[Message] = []
    request = GetState(0, version, 0, 1)
    shelf.answer(ME, request, lambda to, message, tensors: given.append(message))
    return isinstance(given[0], StateChunk)


def test_a_snapshot_that_is_being_fetched_stays_and_others_make_room() -> None:
    """A slow newcomer fetches version 0 while others come, one a minute."""
    clock = Minutes()
    shelf = Shelf(clock)
    shelf.put(at(0))
    for minute in range(1, 20):
        clock.now = minute
        shelf.promise(0, minute)
        assert sum(shelf.has(0, version) for version in range(20)) <= MOST_SNAPSHOTS
        shelf.put(at(minute))
        shelf.tidy()
        assert has(shelf, 0)
    assert [version for version in range(20) if shelf.has(0, version)] == [0, 18, 19]


def test_what_nobody_asks_for_is_let_go_but_for_a_checkpoint() -> None:
    clock = Minutes()
    shelf = Shelf(clock)
    shelf.offer(at(1))
    shelf.offer(at(2))
    shelf.put(at(3))
    clock.now = 3
    shelf.tidy()
    assert [version for version in range(4) if shelf.has(0, version)] == [2]


def test_who_asks_for_a_promised_snapshot_waits_for_it() -> None:
    async def story() -> Snapshot:
        waiting = Shelf()
        waiting.promise(0, 3)
        donors = Donors({"a": waiting})
        getting = asyncio.create_task(donors.get())
        while not donors.asked:
            await asyncio.sleep(0)
        waiting.put(snapshot())
        return await getting

    assert asyncio.run(story()) == snapshot()


def test_broken_promise_is_a_refusal() -> None:
    async def story() -> None:
        waiting = Shelf()
        waiting.promise(0, 3)
        donors = Donors({"a": waiting})
        getting = asyncio.create_task(donors.get())
        while not donors.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.break_promise(0, 3)
        await getting

    with pytest.raises(RunError, match="does not have it"):
        asyncio.run(story())
