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
from swarmrt.scheduler.recording import Record, of_json, to_json, to_plain
from tests.wire.test_frames import messages


@given(messages)
def test_any_message_survives_the_log(message: Message) -> None:
    record = Record(1.5, Received(PeerId("A"), message), [Send(PeerId("B"), message)])
    line = to_json(record)
    assert repr(of_json(line)) == repr(record)  # what is not a number is not equal to itself
    assert json.loads(line, parse_constant=pytest.fail) == to_plain(record)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_survives_too(value: float) -> None:
    line = to_json(Record(1.5, ForwardDone(MicrobatchId(3, 4), 0.25, value, 16, 0), []))
    assert json.loads(line, parse_constant=pytest.fail)["event"]["loss_sum"] == str(value)
    same = of_json(line)
    assert isinstance(same, Record) and isinstance(same.event, ForwardDone)
    assert str(same.event.loss_sum) == str(value) and same.event.seconds == 0.25


def test_a_number_that_is_none_is_refused() -> None:
    plain = to_plain(Record(1.5, ForwardDone(MicrobatchId(3, 4), 0.25, 1.0, 16, 0), []))
    plain["event"]["loss_sum"] = "much"
    with pytest.raises(UsageError, match=r"Expected `float`, got `str` - at `\$.event.loss_sum`"):
        of_json(json.dumps(plain))
