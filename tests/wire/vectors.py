"""Golden vectors: frames, datagrams and records as bytes, and what they mean.

`python -m tests.wire.vectors` writes them to `docs/wire_vectors.json`, which no hand changes.
"""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import torch
from hivemind.dht.routing import DHTID
from hivemind.utils import MSGPackSerializer

from swarmrt.ids import MicrobatchId, PeerId, RunId, Work
from swarmrt.messages import (
    Backward,
    Beacon,
    Facts,
    Finish,
    Forward,
    Hail,
    Message,
    MessageBase,
    Part,
    Probe,
    Probed,
    Recover,
    StateChunk,
)
from swarmrt.runtime.directory.records import (
    AnyRecord,
    Intent,
    PeerRecord,
    RunRecord,
    run_key,
    stage_key,
)
from swarmrt.wire.datagrams import Key
from swarmrt.wire.frames import CHUNK_BYTES, FRAMING, prefix_of
from swarmrt.wire.kinds import NUMBERS, Framed, Hello
from swarmrt.wire.tensors import DTYPES, NAMES
from swarmrt.wire.versions import SPEAKS
from swarmrt.wire.writing import FrameWriter, encode

PATH = Path(__file__).parents[2] / "docs" / "wire_vectors.json"
KINDS = {kind.__name__: kind for kind in NUMBERS}
LONG_RUN = re.compile(rb"(.)\1{63,}", re.DOTALL)
ABOUT = (
    "Written by tests/wire/vectors.py, and explained in wire.md. Bytes are in hex; 00*64 stands "
    "for 64 bytes 00. `times` says how often the values of a tensor are repeated."
)
RUN = RunId("demo", "abcdefghijklmnopqrstuvwxyz")
PEER = PeerId("QmPeerOfTheExample")
KEY = bytes(range(32))

IDS = torch.arange(6).reshape(2, 3)
PAYLOADS: dict[type[MessageBase], list[torch.Tensor]] = {
    Forward: [torch.tensor([[0.5, -1.0], [2.0, 0.25]]), IDS],
    Backward: [torch.tensor([[1.0, -0.5, 3.0]], dtype=torch.bfloat16)],
    Recover: [IDS, IDS + 1],
    Part: [torch.tensor([1.0, -2.0, 0.125])],
    StateChunk: [torch.arange(5, dtype=torch.uint8)],
    Probe: [torch.full((20,), 7, dtype=torch.uint8)],
    Probed: [torch.zeros(16, dtype=torch.uint8)],
    Facts: [torch.arange(6, dtype=torch.uint8)],
}


# ---------------------------------------------------------------------- bytes as text


def as_text(data: bytes) -> str:
    """Return bytes in hex, long runs of one shortened."""
    text, end = [], 0
    for run in LONG_RUN.finditer(data):
        text += [data[end : run.start()].hex(), f"{run[1].hex()}*{len(run[0])}"]
        end = run.end()
    return " ".join(filter(None, [*text, data[end:].hex()]))


def as_bytes(text: str) -> bytes:
    """Return the bytes that a text stands for."""
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(piece) * int(times or 1) for piece, _, times in pieces)


# ---------------------------------------------------------------------- meanings


def meaning(message: Framed, tensors: typing.Sequence[torch.Tensor] = ()) -> dict[str, Any]:
    """Return what a message means, as JSON has it."""
    names = message.__struct_fields__
    told: dict[str, Any] = {
        "name": type(message).__name__,
        "kind": NUMBERS[type(message)],
        "fields": {name: msgspec.to_builtins(getattr(message, name)) for name in names},
    }
    if tensors:
        told["tensors"] = [_told(tensor) for tensor in tensors]
    made: dict[str, Any] = json.loads(json.dumps(told))  # tuples are lists from now on
    return made


def _told(tensor: torch.Tensor) -> dict[str, Any]:
    values, told = tensor.flatten().tolist(), {"dtype": NAMES[tensor.dtype]}
    if len(values) > 64 and len(set(values)) == 1:
        return {**told, "shape": list(tensor.shape), "values": values[:1], "times": len(values)}
    return {**told, "shape": list(tensor.shape), "values": values}


def message_of(told: dict[str, Any]) -> Framed:
    """Return the message that is meant."""
    return typing.cast(Framed, msgspec.convert(told["fields"], type=KINDS[told["name"]]))


def tensors_of(told: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that are meant."""
    return [
        torch.tensor(one["values"] * one.get("times", 1), dtype=DTYPES[one["dtype"]]).reshape(
            one["shape"]
        )
        for one in told.get("tensors", ())
    ]


def frames_of(told: dict[str, Any]) -> list[str]:
    """Return the frames that say what is meant, on a connection on which nothing was said yet."""
    writer, frames = FrameWriter(), []
    writer.push(encode(message_of(told), tensors_of(told)))
    while len(writer):
        frames.append(as_text(b"".join(writer.next_frame())))
    return frames


def datagram_of(told: dict[str, Any]) -> str:
    """Return the datagram that says what is meant; without a name it is an answer."""
    message = typing.cast(Message, message_of(told)) if "name" in told else None
    return as_text(Key(bytes.fromhex(told["key"])).seal(told["counter"], message))


def value_of(told: dict[str, Any]) -> str:
    """Return the value of the record that is meant, without its signature."""
    kind = RunRecord if "published" in told["fields"] else PeerRecord
    record: AnyRecord = kind.model_validate(told["fields"])
    return as_text(MSGPackSerializer.dumps(record.model_dump(exclude_defaults=True)))


def key_of(told: dict[str, Any]) -> str:
    """Return where in the directory a record is stored."""
    return str(DHTID.generate(source=told["key"]).to_bytes().hex())


# ---------------------------------------------------------------------- examples


def example(kind: type[MessageBase]) -> Framed:
    """Return a message of this kind, of which no two numbers are the same."""
    if kind is Hello:
        addresses = ("192.0.2.1:7001", "[2001:db8::1]:7001")
        return Hello(*SPEAKS, str(RUN), KEY.hex(), addresses, "5f" * 16, "v4.public.AAAA", "c0ffee")
    hints = typing.get_type_hints(kind)
    values = {name: _value(name, hints[name], 10 * n) for n, name in enumerate(_names(kind), 1)}
    made: Framed = kind(**values)  # type: ignore[assignment]
    return made


def _names(kind: type[MessageBase]) -> tuple[str, ...]:
    return kind.__struct_fields__


def _value(name: str, hint: Any, n: int) -> Any:
    plain: dict[Any, Any] = {
        int: n,
        float: n + 0.5,
        str: name,
        bool: True,
        PeerId: PEER,
        MicrobatchId: MicrobatchId(n, n + 1, held_out=True),
        Work: Work(MicrobatchId(n, n + 1), n + 2),
        tuple[int, ...]: (n, n + 1),
        tuple[PeerId, ...]: (PEER, PeerId("QmOther")),
    }
    if hint in plain:
        return plain[hint]
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)[-1]
    return ((PEER, (n, n + 1)), (PeerId("QmOther"), ()))  # a roster


def of_frames() -> list[dict[str, Any]]:
    """Return every message, and one in chunks: both ways."""
    told = [meaning(example(kind), PAYLOADS.get(kind, ())) for kind in NUMBERS]
    ones = torch.ones(CHUNK_BYTES + 64, dtype=torch.uint8)
    told.append(meaning(Part(1, 2, 3, 0, summed=True), [ones]))
    return [{**one, "frames": frames_of(one)} for one in told]


def of_other_ages() -> list[dict[str, Any]]:
    """Return what a process of another version might say, and what is read of it."""
    finish, unknown = NUMBERS[Finish], 200
    said: list[tuple[str, list[tuple[int, Any, bytes]], list[Message]]] = [
        (
            "fields that follow those that are known are skipped",
            [(finish, [["over", 7, {"new": [None, 1.5]}], []], b"")],
            [Finish("over")],
        ),
        (
            "a field at the end that has a default may be missing",
            [(NUMBERS[Hail], [[4], []], b"")],
            [Hail(4)],
        ),
        (
            "a message of an unknown kind is skipped with its payload",
            [(unknown, [["?"], [["uint8", [16], "plain"]]], bytes(16)), (finish, [["x"], []], b"")],
            [Finish("x")],
        ),
    ]
    return [
        {
            "why": why,
            "frames": [as_text(_frame(n, *frame)) for n, frame in enumerate(frames, 1)],
            "read": [meaning(message) for message in read],
        }
        for why, frames, read in said
    ]


def _frame(number: int, kind: int, header: Any, payload: bytes) -> bytes:
    packed: bytes = msgpack.packb(header)
    return prefix_of(kind, number, len(packed), len(payload)) + packed + payload


def of_datagrams() -> list[dict[str, Any]]:
    """Return a beacon and its answer: both ways."""
    sealed = {"key": KEY.hex(), "counter": 5}
    told = [{**sealed, **meaning(example(Beacon))}, sealed]
    return [{**one, "datagram": datagram_of(one)} for one in told]


def of_records() -> list[dict[str, Any]]:
    """Return the records of the directory: both ways."""
    peer = PeerRecord(
        run=str(RUN),
        stage=1,
        peer=PEER,
        status="serving",
        version=3,
        membership="v4.public.BBBB",
        life_s=60.0,
        addresses=[f"/ip4/192.0.2.1/tcp/7000/p2p/{PEER}"],
        direct=["192.0.2.1:7001"],
        tokens_per_s=12.5,
        state_bytes=4096,
        device="cpu",
        codecs=["bfloat16", "int8"],
        intents=[Intent(what="move")],
    )
    run = RunRecord(run=str(RUN), published="v4.public.CCCC")
    told = [
        {"key": stage_key(RUN, 1), "fields": peer.model_dump(exclude_defaults=True)},
        {"key": run_key(RUN), "fields": run.model_dump()},
    ]
    return [{**one, "stored_at": key_of(one), "value": value_of(one)} for one in told]


def made() -> dict[str, Any]:
    """Return all vectors, as the file has them."""
    return {
        "about": ABOUT,
        "framing": FRAMING,
        "versions": list(SPEAKS),
        "frames": of_frames(),
        "of other versions": of_other_ages(),
        "datagrams": of_datagrams(),
        "records": of_records(),
    }


def as_file(told: dict[str, Any]) -> str:
    """Return the file's text: JSON with a line for each key of a vector."""
    parts = []
    for name, part in told.items():
        text = json.dumps(part, ensure_ascii=False)
        if isinstance(part, list) and isinstance(part[0], dict):
            text = "[\n" + ",\n".join(map(_lines, part)) + "\n]"
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(vector: dict[str, Any]) -> str:
    pairs = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in vector.items())
    return "  {" + ",\n   ".join(pairs) + "}"


if __name__ == "__main__":
    PATH.write_text(as_file(made()), encoding="utf-8")
    print(f"written: {PATH}")
