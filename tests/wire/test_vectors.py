"""Golden vectors: their bytes mean what the file says, and what it says is written as these bytes.

After a change of the protocol: `python -m tests.wire.vectors`, and look at what has changed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hivemind.utils import MSGPackSerializer

from swarmrt.runtime.directory.records import PeerRecord, RunRecord
from swarmrt.wire.datagrams import Key
from swarmrt.wire.frames import FRAMING
from swarmrt.wire.kinds import NUMBERS, Unknown
from swarmrt.wire.limits import Limits
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.versions import SPEAKS
from tests.wire import vectors

GOLDEN: dict[str, Any] = json.loads(vectors.PATH.read_text(encoding="utf-8"))
LIMITS = Limits.of(1 << 20)
Vector = dict[str, Any]


def named(vector: Vector) -> str:
    return str(vector.get("name") or vector.get("why") or vector["key"])


def read(frames: list[str]) -> list[Vector]:
    reader = FrameReader(LIMITS, gate=lambda message, size: not isinstance(message, Unknown))
    data = b"".join(map(vectors.as_bytes, frames))
    found = [vectors.meaning(message, tensors) for message, tensors in reader.feed(data)]
    assert reader.is_between_messages
    return found


@pytest.mark.parametrize("vector", GOLDEN["frames"], ids=named)
def test_frames_mean_what_is_said_both_ways(vector: Vector) -> None:
    told = {key: value for key, value in vector.items() if key != "frames"}
    assert vectors.frames_of(told) == vector["frames"]
    assert read(vector["frames"]) == [told]


@pytest.mark.parametrize("vector", GOLDEN["of other versions"], ids=named)
def test_frames_of_other_versions_are_read(vector: Vector) -> None:
    assert read(vector["frames"]) == vector["read"]


@pytest.mark.parametrize("vector", GOLDEN["datagrams"], ids=named)
def test_datagrams_mean_what_is_said_both_ways(vector: Vector) -> None:
    assert vectors.datagram_of(vector) == vector["datagram"]
    key = Key(bytes.fromhex(vector["key"]))
    counter, message = key.open(vectors.as_bytes(vector["datagram"]))
    assert counter == vector["counter"]
    if message is None:
        assert "name" not in vector
    else:
        told = vectors.meaning(message)
        assert told == {key: vector[key] for key in told}


@pytest.mark.parametrize("vector", GOLDEN["records"], ids=named)
def test_records_mean_what_is_said_both_ways(vector: Vector) -> None:
    assert vectors.value_of(vector) == vector["value"]
    assert vectors.key_of(vector) == vector["stored_at"]
    value = MSGPackSerializer.loads(vectors.as_bytes(vector["value"]))
    kind = RunRecord if "published" in vector["fields"] else PeerRecord
    assert kind.model_validate(value).model_dump(exclude_defaults=True) == vector["fields"]


def test_file_is_the_one_that_is_written() -> None:
    text = vectors.PATH.read_text(encoding="utf-8")
    assert text == vectors.as_file(vectors.made()), (
        "the protocol has changed: python -m tests.wire.vectors"
    )
    assert (GOLDEN["framing"], GOLDEN["versions"]) == (FRAMING, list(SPEAKS))
    assert {vector["name"] for vector in GOLDEN["frames"]} == {kind.__name__ for kind in NUMBERS}


def test_bytes_come_back_from_their_text() -> None:
    for data in (b"", b"\0", bytes(64), b"ab" + bytes(100) + b"c" + b"\xff" * 64):
        assert vectors.as_bytes(vectors.as_text(data)) == data


def test_chunks_are_among_them() -> None:
    [chunked] = [vector for vector in GOLDEN["frames"] if len(vector["frames"]) > 1]
    [tensor] = vectors.tensors_of(chunked)
    assert tensor.numel() > 256 << 10 and torch.equal(tensor, torch.ones_like(tensor))
