"""Bytes of people who want no good: nothing but WireError comes of them, and memory is bounded.

The suite draws a few; `pytest -m slow` a million frames and a hundred thousand datagrams.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest
import torch

from swarmrt.errors import WireError
from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import ALL_MESSAGES, Beacon, Message
from swarmrt.runtime.process.vitals import resident_bytes
from swarmrt.wire.datagrams import HEAD, Key, key_name
from swarmrt.wire.frames import FRAMING, MAGIC, PREFIX
from swarmrt.wire.kinds import CHUNK, JOIN, MOVED, MOVING, Framed, Hello, Join, Moved, Moving
from swarmrt.wire.limits import GREETING, WITH_PAYLOAD, Limits
from swarmrt.wire.memory import MemoryBudget
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.versions import SPEAKS
from swarmrt.wire.writing import FrameWriter, encode
from tests.wire.test_frames import VALUES, frame

SHARE_BYTES = 4 << 20
LIMITS = Limits.of(1 << 20)
UNKNOWN = 200
KINDS = [*range(len(ALL_MESSAGES) + 2), UNKNOWN, MOVED, MOVING, JOIN, 255]

ATOMS: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**62, 2**63 - 1, 2**64 - 1, -(2**63), 1.5,
    float("nan"), float("inf"), "", "Qm", "x" * 3000, b"", b"x" * 100, [], [[]], {}, {"a": 1},
    ["Qm"] * 1500, list(range(100)), "float32", "plain", [1, 2, 3], "serving", "gradient",
]  # fmt: skip


def samples() -> list[tuple[Framed, list[torch.Tensor]]]:
    """Some message of each kind, with tensors where it may have any."""
    found: list[tuple[Framed, list[torch.Tensor]]] = []
    for kind in ALL_MESSAGES:
        message = _message_of(kind)
        found.append((message, []))
        if kind in WITH_PAYLOAD:
            found.append((message, [torch.arange(50, dtype=torch.int64), torch.zeros(3, 4)]))
    found.append((Hello(*SPEAKS, "run", "00" * 32, ("1.2.3.4:5",), "ab", "", "cd"), []))
    found += [(Join("ab"), []), (Moving(7), []), (Moved(7), [])]
    return found


def _message_of(kind: type[Message]) -> Message:
    plain: dict[Any, Any] = {int: 3, float: 0.5, str: "text", bool: True}
    values = {}
    for name, hint in typing.get_type_hints(kind).items():
        if name in kind.__struct_fields__:
            values[name] = plain.get(hint)
            if values[name] is None:
                values[name] = _plain_value(hint)
    made: Message = msgspec.convert(values, type=kind)
    return made


def _plain_value(hint: Any) -> Any:
    match hint:
        case _ if hint is PeerId:
            return PeerId("QmPeer")
        case _ if hint is MicrobatchId:
            return MicrobatchId(1, 2)
        case _ if hint is Work:
            return Work(MicrobatchId(1, 2), 3)
    assert hint in VALUES, hint
    text = str(hint)
    if "Literal" in text:
        return hint.__args__[0]
    if text.startswith("tuple[tuple"):
        return ((PeerId("QmPeer"), (1, 2)),)
    return (1, 2) if "int" in text else (PeerId("QmPeer"), PeerId("QmOther"))


def written(message: Framed, tensors: list[torch.Tensor]) -> bytes:
    writer, data = FrameWriter(), b""
    writer.push(encode(message, tensors))
    while len(writer):
        data += b"".join(writer.next_frame())
    return data


class Mutations:
    """Draws bytes that are nearly right, or not at all."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.samples = samples()
        self.beacon = _message_of(Beacon)
        self.frames = [written(*sample) for sample in self.samples]
        self.headers = [
            (encode(*sample).kind, msgpack.unpackb(encode(*sample).header))
            for sample in self.samples
        ]
        self.ways: list[Callable[[], bytes]] = [
            self.flipped, self.flipped, self.cut, self.hostile_header, self.hostile_header,
            self.lying_prefix, self.right, self.raw_header,
        ]  # fmt: skip

    def draw(self) -> bytes:
        return self.rng.choice(self.ways)()

    def right(self) -> bytes:
        return self.rng.choice(self.frames)

    def flipped(self) -> bytes:
        data = bytearray(self.right())
        for _ in range(self.rng.randint(1, 4)):
            data[self.rng.randrange(len(data))] = self.rng.getrandbits(8)
        return bytes(data)

    def cut(self) -> bytes:
        data = self.right()
        start = self.rng.randrange(len(data))
        return data[:start] + self.rng.randbytes(self.rng.randrange(20)) + data[start + 3 :]

    def hostile_header(self) -> bytes:
        """One value of a header, at any depth, is something else."""
        kind, header = self.rng.choice(self.headers)
        kind = self.rng.choice([*[kind] * 7, UNKNOWN])
        header = self._changed(header)
        payload = self.rng.randbytes(self.rng.choice([0, 0, 1, 16, 600]))
        return frame(kind, msgpack.packb(header), payload, self.rng.randrange(5))

    def _changed(self, value: Any) -> Any:
        if not isinstance(value, list) or not value or self.rng.random() < 0.2:
            return self.rng.choice(ATOMS)
        place = self.rng.randrange(len(value))
        changed = self._changed(value[place])
        more = [changed] * self.rng.choice([1, 1, 1, 1, 1, 0, 2, 40])
        return [*value[:place], *more, *value[place + 1 :]]

    def raw_header(self) -> bytes:
        """What msgpack itself may say: depth, lengths that are not there, extensions."""
        starts = [
            b"\x91" * 2000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01",
            b"\xd8\x01", b"\xc1", b"\x92\x91", b"\xa5\xff\xfe",
        ]  # fmt: skip
        header = self.rng.choice(starts) + self.rng.randbytes(self.rng.randrange(30))
        return frame(self.rng.choice(KINDS), header, b"", self.rng.randrange(5))

    def lying_prefix(self) -> bytes:
        sizes = [0, 1, 24, 2**20, 2**20 + 1, 2**31, 2**32 - 1]
        payloads = [0, 1, 2**18, 2**18 + 1, 2**31, 2**32 - 1]
        return PREFIX.pack(
            self.rng.choice([MAGIC, MAGIC, MAGIC, b"HTTP"]),
            self.rng.choice([FRAMING, FRAMING, FRAMING, 0, 2]),
            self.rng.choice([CHUNK, *KINDS]),
            self.rng.randrange(4),
            self.rng.choice(sizes),
            self.rng.choice(payloads),
            self.rng.choice([0, 1, 2**16 - 1]),
            self.rng.choice([0, 1, 2**16 - 1]),
        ) + self.rng.randbytes(self.rng.randrange(64))


def feed_frames(number: int, seed: int) -> tuple[int, int]:
    """How many of so many mutated frames were refused, and how many messages came of them."""
    mutations = Mutations(seed)
    rng, budget = mutations.rng, MemoryBudget(4 * SHARE_BYTES)
    account = budget.open(SHARE_BYTES, lambda reason: None)
    refused = came = 0
    reader = FrameReader(LIMITS, account)
    for _ in range(number):
        data = memoryview(mutations.draw())
        try:
            while data:
                data, got = _read_some(reader, data, rng)
                came += got
            is_over = rng.random() < 0.5  # or what was announced swallows all that follows
        except WireError:
            refused, is_over = refused + 1, True
        if is_over:
            reader.drop()
            reader = FrameReader(rng.choice([LIMITS, LIMITS, GREETING]), account)
        assert account.held_bytes == budget.held_bytes <= SHARE_BYTES
    reader.drop()
    assert budget.held_bytes == 0
    return refused, came


def _read_some(reader: FrameReader, data: memoryview, rng: random.Random) -> tuple[memoryview, int]:
    """As a connection does it, or in another way; what is left, and how many messages came."""
    if rng.random() < 0.3:
        size = rng.randint(1, len(data))
        return data[size:], sum(1 for _ in reader.feed(data[:size]))
    buffer = reader.get_buffer()
    size = min(len(buffer), len(data))
    buffer[:size] = data[:size]
    return data[size:], sum(1 for _ in reader.buffer_updated(size))


def open_datagrams(number: int, seed: int) -> tuple[int, int]:
    """How many of so many datagrams were refused, and how many opened."""
    mutations = Mutations(seed)
    rng, key = mutations.rng, Key(bytes(range(32)))
    refused = opened = 0
    for counter in range(number):
        if rng.random() < 0.5:
            datagram = bytearray(key.seal(counter, mutations.beacon))
            datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
            datagram = datagram[: rng.choice([len(datagram), rng.randrange(len(datagram) + 1)])]
        else:  # sealed by one who has the key
            kind, header = rng.choice(mutations.headers)
            body = msgpack.packb(mutations._changed(header))[:1100]
            datagram = bytearray(HEAD.pack(key.name, counter, rng.choice([kind, 0, 77])) + body)
            datagram += key._seal_of(bytes(datagram))
        if key_name(bytes(datagram)) is None:
            refused += 1
            continue
        try:
            key.open(bytes(datagram))
            opened += 1
        except WireError:
            refused += 1
    return refused, opened


@pytest.mark.parametrize("seed", range(4))
def test_mutated_frames(seed: int) -> None:
    refused, came = feed_frames(5_000, seed)
    assert refused > 1_000 and came > 100  # they bite, and not only


def test_mutated_datagrams() -> None:
    refused, opened = open_datagrams(10_000, seed=1)
    assert refused > 1_000 and opened > 100


@pytest.mark.slow
def test_a_million_mutated_frames() -> None:
    before = resident_bytes() or 0
    refused, came = feed_frames(1_000_000, seed=11)
    assert refused > 200_000 and came > 20_000
    assert (resident_bytes() or 0) - before < 128 << 20


@pytest.mark.slow
def test_a_hundred_thousand_mutated_datagrams() -> None:
    before = resident_bytes() or 0
    refused, opened = open_datagrams(100_000, seed=12)
    assert refused > 10_000 and opened > 1_000
    assert (resident_bytes() or 0) - before < 64 << 20
