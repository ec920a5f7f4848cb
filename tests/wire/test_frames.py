"""The wire format: any message, any split; nonsense is refused before it costs anything."""

from __future__ import annotations

import tracemalloc
import typing
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.errors import WireError
from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    ALL_MESSAGES,
    Claim,
    FailedIn,
    Finish,
    Forward,
    FrameKind,
    Hail,
    Idle,
    Message,
    Part,
    PeerState,
    Probe,
    Roster,
    Stale,
    TooSlow,
)
from swarmrt.scheduler.trainer.own_link import FRAME_BYTES
from swarmrt.wire.frames import CHUNK_BYTES, MAGIC, PREFIX, prefix_of
from swarmrt.wire.headers import LARGEST_NUMBER, MOST_ITEMS, REASON_CHARACTERS, TEXT_CHARACTERS
from swarmrt.wire.kinds import HELLO, Framed
from swarmrt.wire.limits import MAX_HEADER_BYTES, WITH_PAYLOAD, Limits
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.writing import FrameWriter, encode

MAX_BYTES = 4 << 20
LIMITS = Limits.of(MAX_BYTES)

small = st.integers(0, 2**40)
peers = st.text("abcQm123", max_size=12).map(PeerId)
microbatches = st.builds(MicrobatchId, small, small, st.booleans())
works = st.builds(Work, microbatches, small)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: small,
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20),
    bool: st.booleans(),
    PeerId: peers,
    MicrobatchId: microbatches,
    Work: works,
    FailedIn: st.sampled_from(["", "forward", "backward", "weights"]),
    FrameKind: st.sampled_from(["output", "gradient"]),
    PeerState: st.sampled_from(["joining", "loading", "serving", "leaving"]),
    Idle: st.sampled_from(["", "off", "nobody"]),
    TooSlow: st.sampled_from(["link", "state", "round"]),
    tuple[int, ...]: st.lists(small, max_size=4).map(tuple),
    tuple[PeerId, ...]: st.lists(peers, max_size=4).map(tuple),
    Roster: st.lists(st.tuples(peers, st.lists(small, max_size=3).map(tuple)), max_size=3).map(
        tuple
    ),
}


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: VALUES[hints[name]] for name in kind.__struct_fields__})


messages = st.one_of(*map(messages_of, ALL_MESSAGES))
tensors = st.lists(
    st.builds(
        lambda dtype, shape: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
        st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8]),
        st.lists(st.integers(0, 5), max_size=3),
    ),
    max_size=3,
)
loaded: st.SearchStrategy[tuple[Message, list[torch.Tensor]]] = st.one_of(
    st.tuples(messages, st.just([])),
    st.tuples(st.one_of(*map(messages_of, WITH_PAYLOAD)), tensors),
)


def written(*outgoing: tuple[Framed, list[torch.Tensor]]) -> bytes:
    writer = FrameWriter()
    for message, its_tensors in outgoing:
        writer.push(encode(message, its_tensors))
    data = b""
    while len(writer):
        data += b"".join(writer.next_frame())
    assert writer.queued_bytes == 0
    return data


def frame(kind: int, header: bytes, payload: bytes = b"", number: int = 1) -> bytes:
    return prefix_of(kind, number, len(header), len(payload)) + header + payload


@given(st.lists(loaded, max_size=4), st.integers(1, 64))
def test_any_messages_come_through_any_split(
    sent: list[tuple[Message, list[torch.Tensor]]], step: int
) -> None:
    data = written(*sent)
    reader = FrameReader(LIMITS)
    got = [
        item
        for start in range(0, len(data), step)
        for item in reader.feed(data[start : start + step])
    ]
    key = repr
    assert sorted((m for m, _ in got), key=key) == sorted((m for m, _ in sent), key=key)
    for (message, expected), (same, actual) in zip(
        sorted(sent, key=lambda i: repr(i[0])), sorted(got, key=lambda i: repr(i[0])), strict=True
    ):
        assert message == same
        if [m for m, _ in sent].count(message) == 1:
            assert [(t.dtype, t.shape) for t in actual] == [(t.dtype, t.shape) for t in expected]
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@given(messages, tensors)
def test_headers_are_plain_msgpack(message: Message, its_tensors: list[torch.Tensor]) -> None:
    values = [getattr(message, name) for name in message.__struct_fields__]
    descriptors = [
        [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), "plain"]
        for tensor in its_tensors
    ]
    assert encode(message, its_tensors).header == msgpack.packb([values, descriptors])


def test_control_overtakes_bulk() -> None:
    writer = FrameWriter()
    bulk = torch.arange(CHUNK_BYTES, dtype=torch.int64)
    writer.push(encode(Part(1, 1, 1, 0, False), [bulk]))
    data = b"".join(writer.next_frame())
    writer.push(encode(Finish("now")))
    while len(writer):
        data += b"".join(writer.next_frame())
    (first, _), (second, [got]) = FrameReader(LIMITS).feed(data)
    assert first == Finish("now") and second == Part(1, 1, 1, 0, False)
    assert torch.equal(got, bulk)


def test_activation_overtakes_parts_that_are_under_way() -> None:
    """An activation that is pushed after a round's parts goes before what is left of them; it went
    after the last of them. Parts are bulk, however small."""
    writer = FrameWriter(frame_bytes=CHUNK_BYTES // 4)
    for index in range(3):
        writer.push(encode(Part(1, 1, 1, index, False), [torch.zeros(CHUNK_BYTES)]))
    data = b"".join(writer.next_frame())
    forward = Forward(Work(MicrobatchId(0, 1), 1), 1, ())
    writer.push(encode(forward, [torch.ones(CHUNK_BYTES // 4)]))
    writer.push(encode(Part(1, 1, 1, 3, False), [torch.zeros(1)]))
    while len(writer):
        data += b"".join(writer.next_frame())
    messages = [message for message, _ in FrameReader(LIMITS).feed(data)]
    assert messages == [forward, *(Part(1, 1, 1, index, False) for index in range(4))]


def test_bulk_can_be_overtaken_by_many_thousand_messages() -> None:
    writer, reader = FrameWriter(), FrameReader(LIMITS)
    writer.push(encode(Part(1, 1, 1, 0, False), [torch.zeros(CHUNK_BYTES)]))
    assert not list(reader.feed(b"".join(writer.next_frame())))
    finish = encode(Finish(""))
    for _ in range(70_000):  # more than 16 bits of message numbers
        finish.begun = False
        writer.push(finish)
        for _ in reader.feed(b"".join(writer.next_frame())):
            pass
    rest = b"".join(b"".join(writer.next_frame()) for _ in range(3))
    [(message, _)] = reader.feed(rest)
    assert message == Part(1, 1, 1, 0, False)


def test_decoded_tensors_are_aligned_and_writable() -> None:
    odd, even = torch.ones(3, dtype=torch.uint8), torch.ones(5, dtype=torch.float64)
    [(_, [_, second])] = FrameReader(LIMITS).feed(written((Probe(1, 0), [odd, even])))
    second += 1
    assert second.data_ptr() % 8 == 0 and second.sum() == 10


def header(values: list[Any], descriptors: Any = ()) -> bytes:
    return bytes(msgpack.packb([values, descriptors]))


FINISH = 1 + ALL_MESSAGES.index(Finish)
PROBE = 1 + ALL_MESSAGES.index(Probe)
HAIL = 1 + ALL_MESSAGES.index(Hail)
CLAIM = 1 + ALL_MESSAGES.index(Claim)
STALE = 1 + ALL_MESSAGES.index(Stale)
NONSENSE = {
    "other protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a frame"),
    "version": (PREFIX.pack(MAGIC, 9, FINISH, 1, 0, 0, 0, 0), "a frame of version 9"),
    "unknown kind without a header": (
        prefix_of(200, 1, 0, 0),
        "kind 200: the",
    ),
    "long header": (
        prefix_of(FINISH, 1, MAX_HEADER_BYTES + 1, 0),
        "header of",
    ),
    "long payload": (prefix_of(FINISH, 1, 9, 2**30), "payload"),
    "not msgpack": (frame(FINISH, b"\xc1"), "not msgpack"),
    "not UTF-8": (frame(FINISH, b"\x92\x91\xa1\xff\x90"), "not msgpack"),
    "nested without end": (frame(FINISH, b"\x91" * 100_000), "not msgpack"),
    "more than one value": (frame(FINISH, header([""]) + b"\x00"), "not msgpack"),
    "no list": (frame(FINISH, msgpack.packb(3)), "not [fields, tensors]"),
    "wrong type": (frame(FINISH, header([3])), "Finish.reason cannot be 3"),
    "too few fields": (frame(FINISH, header([])), "has at least 1 fields, got 0"),
    "bool for int": (frame(STALE, header([[[True, 0, False], 1]])), "Stale.work"),
    "short work": (frame(STALE, header([[[1, 0], 1]])), "Stale.work"),
    "huge tensor": (
        frame(PROBE, header([1, 0], [["float32", [1 << 40], "plain"]])),
        "of Probe at most",
    ),
    "payload of control": (
        frame(FINISH, header([""], [["float32", [1], "plain"]])),
        "of Finish at most 0",
    ),
    "long reason": (frame(FINISH, header(["x" * (REASON_CHARACTERS + 1)])), "Finish.reason"),
    "long text": (
        frame(HELLO, header([1, 1, "r" * (TEXT_CHARACTERS + 1), "", [], "", "", ""])),
        "Hello.run",
    ),
    "large number": (frame(HAIL, header([LARGEST_NUMBER + 1, ""])), "Hail.epoch"),
    "long route": (
        frame(CLAIM, header([[[1, 0, False], 1], 1, ["Qm"] * (MOST_ITEMS + 1), 1.0, 1])),
        "Claim.route",
    ),
    "long id": (
        frame(CLAIM, header([[[1, 0, False], 1], 1, ["Q" * 129], 1.0, 1])),
        "Claim.route",
    ),
    "many tensors": (
        frame(PROBE, header([1, 0], [["uint8", [1], "plain"]] * 17)),
        "descriptor",
    ),
    "many dimensions": (
        frame(PROBE, header([1, 0], [["uint8", [1] * 9, "plain"]])),
        "descriptor",
    ),
    "negative size": (frame(PROBE, header([1, 0], [["float32", [-1], "plain"]])), "no sense"),
    "empty, but vast": (
        frame(FINISH, header([""], [["uint8", [0, 1 << 62, 1 << 62], "plain"]])),
        "larger than any message",
    ),
    "empty, with a size beyond 64 bits signed": (
        frame(FINISH, header([""], [["uint8", [0, 2**64 - 1], "plain"]])),
        "larger than any message",
    ),
    "unknown dtype": (frame(PROBE, header([1, 0], [["object", [1], "plain"]])), "descriptor"),
    "payload without tensors": (frame(FINISH, header([""]), b"x"), "more payload"),
    "short chunk": (
        frame(PROBE, header([1, 0], [["uint8", [1 << 20], "plain"]]), bytes(1000)),
        "1000 bytes of message 1, and 1048576 are left",
    ),
    "stray chunk": (frame(0, b"", b"x"), "never begun"),
    "hello": (frame(HELLO, header(["1", 1, "run", "", [], "", "", ""])), "Hello.least"),
}


@pytest.mark.parametrize(("data", "expected"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_with_a_reason(data: bytes, expected: str) -> None:
    with pytest.raises(WireError) as error:
        list(FrameReader(LIMITS).feed(data))
    assert expected in str(error.value)


def test_sizes_are_bounded_before_anything_is_allocated() -> None:
    tracemalloc.start()
    huge = header([1, 0], [["uint8", [MAX_BYTES], "plain"]])
    reader = FrameReader(LIMITS)
    with pytest.raises(WireError, match="a message of"):
        for number in range(1, 100):
            list(reader.feed(frame(PROBE, huge, bytes(16 << 10), number)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_BYTES


@given(st.binary(max_size=200), st.booleans())
def test_garbage_raises_nothing_but_wire_errors(garbage: bytes, after_prefix: bool) -> None:
    data = prefix_of(FINISH, 1, 20, 0) + garbage if after_prefix else garbage
    try:
        list(FrameReader(LIMITS).feed(data))
    except WireError:
        pass


def test_the_trainer_knows_how_much_a_word_waits_for() -> None:
    assert FRAME_BYTES == CHUNK_BYTES
