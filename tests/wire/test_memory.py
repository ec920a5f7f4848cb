"""What others announce costs nothing; what they send is bounded, a peer and all together."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from swarmrt.errors import WireError
from swarmrt.messages import Finish, Message, Part, Probe
from swarmrt.runtime.process.vitals import resident_bytes
from swarmrt.wire.frames import prefix_of
from swarmrt.wire.kinds import CHUNK, Hello
from swarmrt.wire.limits import GREETING, Limits
from swarmrt.wire.memory import MemoryBudget
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.versions import SPEAKS
from swarmrt.wire.writing import encode
from tests.wire.test_frames import frame, written

MIB = 1 << 20
LIMITS = Limits.of(256 * MIB)
PART = Part(1, 1, 1, 0, False)


def announced(size: int, number: int = 1, payload: bytes = bytes(16 << 10)) -> bytes:
    """The first frame of a part of so many bytes, of which little has come."""
    outgoing = encode(PART, [torch.empty(size, dtype=torch.uint8)])
    return frame(outgoing.kind, outgoing.header, payload, number)


def never(reason: str) -> None:
    raise AssertionError(reason)


def test_announced_payload_takes_no_memory() -> None:
    """Hole: 864 bytes of frames made a process 3.6 GiB larger."""
    before = resident_bytes()
    readers = [FrameReader(LIMITS) for _ in range(8)]
    for reader in readers:
        assert not list(reader.feed(announced(256 * MIB) + announced(256 * MIB, 2)))
    after = resident_bytes()
    if before is not None and after is not None:  # not on every system
        assert after - before < 128 * MIB  # 16 huge pages, and not 4 GiB
    del reader, readers


def test_nobody_announces_a_payload_before_hello() -> None:
    with pytest.raises(WireError, match="of Part at most 0 are taken"):
        list(FrameReader(GREETING).feed(announced(16)))
    long_name = frame(
        encode(Hello(*SPEAKS, "r", "", (), "", "")).kind, b"\xc1" * (GREETING.header_bytes + 1)
    )
    with pytest.raises(WireError, match="a header of"):
        list(FrameReader(GREETING).feed(long_name))


def test_limits_change_with_the_hello() -> None:
    reader = FrameReader(GREETING)
    hello = written((Hello(*SPEAKS, "run", "", (), "", ""), []))
    got: list[Message] = []
    for message, _ in reader.feed(hello + announced(16, 2, bytes(16))):
        got.append(message)
        reader.limits = LIMITS  # as whoever reads does once it has looked at it
    assert got == [Hello(*SPEAKS, "run", "", (), "", ""), PART]


def test_each_kind_has_its_own_limit() -> None:
    limits = Limits.of(MIB, {Part: 64})
    reader = FrameReader(limits)
    list(reader.feed(written((Probe(1, 0), [torch.zeros(MIB, dtype=torch.uint8)]))))
    with pytest.raises(WireError, match="a message of 80 bytes; of Part at most 64 are taken"):
        list(reader.feed(announced(80, 2)))


def test_share_of_a_peer_is_what_has_come() -> None:
    budget = MemoryBudget(64 * MIB)
    account = budget.open(8 * MIB, never)
    first, second = (FrameReader(LIMITS, account) for _ in range(2))
    list(first.feed(announced(256 * MIB, 1)))
    list(second.feed(announced(256 * MIB, 1)))
    assert account.held_bytes == budget.held_bytes == 4 * MIB
    chunk = bytes(256 << 10)
    with pytest.raises(WireError, match="a peer may have at most 8388608"):
        for _ in range(64):
            list(first.feed(frame(CHUNK, b"", chunk)))
    assert account.held_bytes <= 8 * MIB
    first.drop()
    second.drop()
    assert account.held_bytes == budget.held_bytes == 0
    assert first.is_between_messages and not list(first.feed(announced(16, 3, bytes(16))))


def test_whole_message_is_no_longer_charged() -> None:
    budget = MemoryBudget(64 * MIB)
    reader = FrameReader(LIMITS, budget.open(64 * MIB, never))
    big = torch.arange(3 * MIB, dtype=torch.uint8)
    for _ in range(20):
        [(message, [got])] = reader.feed(written((PART, [big])))
        assert message == PART and torch.equal(got, big)
        assert budget.held_bytes == 0


def test_whoever_holds_most_goes_when_the_budget_is_spent() -> None:
    budget = MemoryBudget(8 * MIB)
    evicted: list[str] = []
    greedy, modest = budget.open(8 * MIB, evicted.append), budget.open(8 * MIB, never)
    hoard = FrameReader(LIMITS, greedy)
    for number in range(1, 4):
        list(hoard.feed(announced(64 * MIB, number)))
    reader = FrameReader(LIMITS, modest)
    list(reader.feed(announced(64 * MIB)))
    assert not evicted
    list(reader.feed(frame(CHUNK, b"", bytes(256 << 10))))
    with pytest.raises(WireError, match="most of them its own"):
        list(hoard.feed(announced(64 * MIB, 4)))
    list(FrameReader(LIMITS, modest).feed(announced(3 * MIB)))
    assert len(evicted) == 1
    hoard.drop()
    budget.close(greedy)
    assert budget.held_bytes == modest.held_bytes


def test_gate_passes_over_payloads_that_nobody_wants() -> None:
    budget = MemoryBudget(MIB)
    asked: list[tuple[Message, int]] = []

    def gate(message: Message, payload_bytes: int) -> bool:
        asked.append((message, payload_bytes))
        return not isinstance(message, Part)

    reader = FrameReader(LIMITS, budget.open(MIB, never), gate)
    data = written((PART, [torch.zeros(5 * MIB, dtype=torch.uint8)]), (Finish("after"), []))
    got = []
    for start in range(0, len(data), 100_001):
        got += [message for message, _ in reader.feed(data[start : start + 100_001])]
        assert budget.held_bytes == 0
    assert got == [Finish("after")] and reader.is_between_messages
    assert asked == [(Finish("after"), 0), (PART, 5 * MIB)]


def test_unwanted_payload_is_read_past_in_place() -> None:
    reader = FrameReader(LIMITS, gate=lambda message, _: isinstance(message, Finish))
    data = memoryview(written((PART, [torch.zeros(MIB, dtype=torch.uint8)]), (Finish("x"), [])))
    got: list[Message] = []
    while data:
        buffer = reader.get_buffer()
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        data = data[size:]
        got += [message for message, _ in reader.buffer_updated(size)]
    assert got == [Finish("x")]


def test_gate_may_refuse() -> None:
    def gate(message: Message, payload_bytes: int) -> bool:
        raise WireError(f"{type(message).__name__} is not for you")

    with pytest.raises(WireError, match="Finish is not for you"):
        list(FrameReader(LIMITS, gate=gate).feed(written((Finish(""), []))))


def test_dropped_payload_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        reader = FrameReader(LIMITS)
        list(reader.feed(announced(64 * MIB) + prefix_of(CHUNK, 1, 0, MIB // 4)))
        payload = weakref.ref(reader.get_buffer().obj)
        assert payload() is not None
        reader.drop()
        assert payload() is None
    finally:
        gc.enable()
