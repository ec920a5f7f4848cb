"""What is written down of a message comes back as it was, and is nothing but JSON."""

from __future__ import annotations

import json

from hypothesis import given

from swarmrt.ids import PeerId
from swarmrt.messages import Message
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.recording import from_plain, record, to_plain
from tests.test_wire_frames import messages


@given(messages)
def test_any_message_survives_the_log(message: Message) -> None:
    event, instructions = Received(PeerId("A"), message), [Send(PeerId("B"), message)]
    entry = record(1.5, event, instructions)
    assert json.loads(json.dumps(entry)) == entry
    assert from_plain(entry["event"]) == event
    assert [to_plain(instruction) for instruction in instructions] == entry["instructions"]
