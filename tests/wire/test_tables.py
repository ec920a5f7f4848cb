"""Every message is in all the places that must know it."""

from __future__ import annotations

import json
import re

import pytest

from swarmrt.messages import ALL_MESSAGES, Message
from swarmrt.permissions import TO_PEER, TO_TRAINER
from swarmrt.wire.kinds import NUMBERS, READ, WRITTEN
from swarmrt.wire.limits import MAX_HEADER_BYTES, WITH_PAYLOAD, Limits
from tests.wire import vectors

PAGE = (vectors.PATH.parent / "wire.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+) \| (\w+) \| ([^|]+) \| ([^|]+) \|([^|]*)\|$", re.MULTILINE)
TABLE = {
    name: (int(number), fields, payload) for number, name, _, fields, payload in ROW.findall(PAGE)
}


@pytest.mark.parametrize("kind", ALL_MESSAGES, ids=lambda kind: kind.__name__)
def test_message_is_in_all_tables(kind: type[Message]) -> None:
    name, number = kind.__name__, NUMBERS[kind]
    written_number, fields, payload = TABLE[name]
    assert written_number == number == 1 + ALL_MESSAGES.index(kind)
    assert re.split(r",\s*", fields.strip()) == list(kind.__struct_fields__)
    assert bool(payload.strip()) == (kind in WITH_PAYLOAD)
    assert kind in TO_PEER or kind in TO_TRAINER
    assert READ[number] is WRITTEN[number]
    limits = Limits.of(1 << 20)
    assert limits.header_bytes == MAX_HEADER_BYTES
    assert (limits.payload_bytes.get(kind, 0) > 0) == (kind in WITH_PAYLOAD)
    golden = json.loads(vectors.PATH.read_text(encoding="utf-8"))["frames"]
    mine = [vector for vector in golden if vector["name"] == name]
    assert mine and all(("tensors" in vector) == (kind in WITH_PAYLOAD) for vector in mine)


def test_tables_have_nothing_else() -> None:
    assert TABLE.keys() == {kind.__name__ for kind in ALL_MESSAGES}
    assert len(set(NUMBERS.values())) == len(NUMBERS) == len(ALL_MESSAGES) + 4
    assert WRITTEN.keys() == set(NUMBERS.values())
