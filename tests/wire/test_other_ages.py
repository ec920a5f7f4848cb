"""Messages of a process that is older or newer than this one, and what the two agree on."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
import torch

from swarmrt.errors import NoCommonVersion, WireError
from swarmrt.messages import Ending, Finish, Hail, Message, Part
from swarmrt.wire.frames import CHUNK_BYTES
from swarmrt.wire.kinds import CHUNK, HELLO, NUMBERS, WRITTEN, Unknown
from swarmrt.wire.limits import GREETING, MAX_HEADER_BYTES, Limits
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.skipping import MOST_FIELDS, SKIPPED_BYTES, SKIPPED_DEPTH
from swarmrt.wire.versions import Versions
from swarmrt.wire.writing import encode
from tests.wire.test_frames import frame, header
from tests.wire.test_fuzz import samples

LIMITS = Limits.of(1 << 20)
NEWER: list[Any] = [None, True, -1, 2**64 - 1, 0.5, "more", b"more", [1, [2]], {"a": {"b": [3]}}]
UNKNOWN = 200
assert UNKNOWN not in WRITTEN


def read(data: bytes, limits: Limits = LIMITS) -> list[Message]:
    return [message for message, _ in FrameReader(limits).feed(data)]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_fields_that_follow_are_skipped(kind: type[Message]) -> None:
    message = next(message for message, tensors in samples() if type(message) is kind)
    outgoing = encode(message)
    values, descriptors = msgpack.unpackb(outgoing.header)
    more = msgpack.packb([values + NEWER, descriptors])
    assert read(frame(outgoing.kind, more)) == [message]


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_fields_at_the_end_may_be_missing_if_they_have_defaults(kind: type[Message]) -> None:
    message = next(message for message, tensors in samples() if type(message) is kind)
    outgoing = encode(message)
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    values, descriptors = msgpack.unpackb(outgoing.header)
    for missing in range(1, len(defaults) + 1):
        fewer = frame(outgoing.kind, msgpack.packb([values[:-missing], descriptors]))
        shortened = dict(zip(names[-missing:], defaults[-missing:], strict=True))
        expected = {name: getattr(message, name) for name in names} | shortened
        assert read(fewer) == [kind(**expected)]
    if len(defaults) < len(names):
        too_few = msgpack.packb([values[: len(names) - len(defaults) - 1], descriptors])
        with pytest.raises(WireError, match=f"{kind.__name__} has at least"):
            read(frame(outgoing.kind, too_few))


def test_known_fields_are_checked_whatever_follows() -> None:
    with pytest.raises(WireError, match="Hail.epoch cannot be 'x'"):
        read(frame(NUMBERS[Hail], header(["x", "", "more"])))
    with pytest.raises(WireError, match="Ending.reason cannot be 3"):
        read(frame(NUMBERS[Ending], header([3])))


@pytest.mark.parametrize("kind", [NUMBERS[Finish], UNKNOWN])
def test_what_is_skipped_is_bounded(kind: int) -> None:
    most: list[list[Any]] = [
        [0] * (MOST_FIELDS - 1),
        [b"x" * (SKIPPED_BYTES - 20)],
        [nested(SKIPPED_DEPTH)],
    ]
    for more in most:
        read(frame(kind, header(["x", *more])))
    too_much: list[list[Any]] = [
        [0] * MOST_FIELDS,
        [b"x" * SKIPPED_BYTES],
        [nested(SKIPPED_DEPTH + 1)],
        [{"a": nested(SKIPPED_DEPTH)}],
    ]
    for more in too_much:
        with pytest.raises(WireError):
            read(frame(kind, header(["x", *more])))
    for raw in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xa1\xff"):
        with pytest.raises(WireError):
            read(frame(kind, b"\x92\x92\xa1x" + raw + b"\x90"))
    for depth in range(900, 1100):  # about where msgspec itself ends
        with pytest.raises(WireError):
            read(frame(kind, b"\x92\x92\xa1x" + b"\x91" * depth + b"\xc0\x90"))


def unknown(size: int, number: int = 1) -> bytes:
    """Return a message of an unknown kind with so many bytes of payload, in frames."""
    descriptors = [["uint8", [size], "plain"]]
    data, left = b"", size
    while not data or left:
        payload = bytes(min(left, CHUNK_BYTES))
        head = b"" if data else header(["what", 3], descriptors)
        data += frame(CHUNK if data else UNKNOWN, head, payload, number)
        left -= len(payload)
    return data


def test_message_of_an_unknown_kind_is_skipped_and_its_payload_too() -> None:
    asked: list[tuple[object, int]] = []

    def gate(message: Message, size: int) -> bool:
        asked.append((message, size))
        return not isinstance(message, Unknown)

    reader = FrameReader(LIMITS, gate=gate)
    size = 3 * CHUNK_BYTES
    part, tensor = Part(1, 2, 3, 4, False), torch.arange(4.0)
    outgoing = encode(part, [tensor])
    data = unknown(size) + frame(
        outgoing.kind, outgoing.header, b"".join(outgoing.pieces), number=2
    )
    [(message, [got])] = list(reader.feed(data))
    assert message == part and torch.equal(got, tensor)
    assert asked == [(Unknown(UNKNOWN), size), (part, 16)]
    assert reader.is_between_messages


def test_message_of_an_unknown_kind_is_as_large_as_any() -> None:
    with pytest.raises(WireError, match="of unknown kind 200 at most 1048576 are taken"):
        read(unknown(LIMITS.largest_bytes + 16))
    with pytest.raises(WireError, match="of unknown kind 200 at most 0 are taken"):
        read(unknown(16), GREETING)
    with pytest.raises(WireError, match="a header of"):
        read(frame(UNKNOWN, bytes(MAX_HEADER_BYTES + 1)))


def test_defaults_are_plain_values() -> None:
    """What is missing is written as its default is."""
    for kind in NUMBERS:
        for default in kind.__struct_defaults__:
            assert isinstance(default, bool | int | float | str | tuple), (kind, default)


@pytest.mark.parametrize("seed", range(3))
def test_any_two_ranges_agree_from_both_sides(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        one, other = (
            Versions(low, low + rng.randrange(4)) for low in rng.choices(range(1, 8), k=2)
        )
        both = set(range(one.least, one.most + 1)) & set(range(other.least, other.most + 1))
        if both:
            assert one.common(other) == other.common(one) == max(both)
            continue
        for ours, theirs in ((one, other), (other, one)):
            older = "this process" if ours.most < theirs.most else "the other end"
            with pytest.raises(NoCommonVersion) as error:
                ours.common(theirs)
            assert str(error.value) == (
                f"this process speaks version {ours} of the protocol, the other end {theirs}: "
                f"update swarmrt of {older}"
            )


@pytest.mark.parametrize("range_", [(0, 3), (4, 3), (-1, -1)])
def test_what_is_no_range_is_refused(range_: tuple[int, int]) -> None:
    with pytest.raises(WireError, match="are no range"):
        Versions(2, 3).common(Versions(*range_))


def test_hello_of_any_later_version_is_read() -> None:
    values = [7, 9, "run", "", [], "", "", "", {"new": 1}]
    [hello] = read(frame(HELLO, header(values)), GREETING)
    assert (hello.least, hello.most, hello.run) == (7, 9, "run")  # type: ignore[union-attr]
