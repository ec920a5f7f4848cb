"""What is written down of a message comes back as it was, and is nothing but JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given

from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Message
from swarmrt.scheduler.events import ForwardDone, Received
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.recording import from_plain, record, to_json, to_plain
from tests.wire.test_frames import messages


@given(messages)
def test_any_message_survives_the_log(message: Message) -> None:
    event, instructions = Received(PeerId("A"), message), [Send(PeerId("B"), message)]
    entry = json.loads(to_json(record(1.5, event, instructions)))
    assert entry["now"] == 1.5
    assert from_plain(entry["event"]) == event
    assert [to_plain(instruction) for instruction in instructions] == entry["instructions"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_survives_too(value: float) -> None:
    event = ForwardDone(MicrobatchId(3, 4), 0.25, value, 16, 0)
    same = from_plain(json.loads(to_json(event), parse_constant=pytest.fail))
    assert str(same.loss_sum) == str(value) and same.seconds == 0.25


def test_a_number_that_is_none_is_refused() -> None:
    plain = to_plain(ForwardDone(MicrobatchId(3, 4), 0.25, 1.0, 16, 0))
    with pytest.raises(UsageError, match="'much' where a number belongs"):
        from_plain(plain | {"loss_sum": "much"})
