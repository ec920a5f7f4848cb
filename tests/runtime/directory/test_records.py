"""What a record may have beyond what is known here, and what it may not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer

from swarmrt.runtime.directory.nesting import MOST_NESTED
from swarmrt.runtime.directory.records import MAX_KEY_CHARACTERS, MAX_RECORD_BYTES, Signed
from swarmrt.wire.skipping import MOST_FIELDS, SKIPPED_DEPTH
from tests.runtime.directory.test_records_fuzz import Fuzz

ABILITIES: dict[str, Any] = {
    "tokens_per_s": 1234.5, "state_bytes": 1 << 40, "device": "cuda",
    "codecs": ["bfloat16", "int8"], "intents": [{"what": "move", "stage": 3, "when": [1, 2]}],
}  # fmt: skip


@pytest.fixture
def fuzz(tmp_path: Path) -> Fuzz:
    return Fuzz(1, tmp_path)


def stored(fuzz: Fuzz, more: dict[Any, Any], which: int = 0) -> DHTRecord:
    key, value = fuzz.real[which]
    return fuzz.stored(key, dict(value) | more)


def is_taken(fuzz: Fuzz, record: DHTRecord) -> bool:
    taken = [records.validate(record) for records in fuzz.readers]
    assert all(taken) == any(taken)
    return all(taken)


def read(fuzz: Fuzz, record: DHTRecord) -> Signed:
    """Return what a reader makes of it."""
    reader = fuzz.readers[0]
    value = MSGPackSerializer.loads(reader.strip_value(record))
    return reader.parse(fuzz.mine.subkey, value)


@pytest.mark.parametrize("which", [0, 1])
def test_unknown_keys_are_skipped_and_signed(fuzz: Fuzz, which: int) -> None:
    more = {"added": {"later": [1, None, {"deep": b"x"}]}, "flag": True}
    record = stored(fuzz, more, which)
    assert is_taken(fuzz, record)
    assert read(fuzz, record) == read(fuzz, stored(fuzz, {}, which))
    changed = DHTRecord(
        record.key, record.subkey, record.value.replace(b"later", b"Later"), record.expiration_time
    )
    assert changed != record and not is_taken(fuzz, changed)


def test_abilities_may_be_told_and_may_be_missing(fuzz: Fuzz) -> None:
    told = read(fuzz, stored(fuzz, ABILITIES)).record.model_dump()
    assert {key: told[key] for key in ABILITIES if key != "intents"} == {
        key: value for key, value in ABILITIES.items() if key != "intents"
    }
    assert told["intents"] == [{"what": "move"}]
    untold = read(fuzz, stored(fuzz, {})).record.model_dump()
    assert [untold[key] for key in ABILITIES] == [0.0, 0, "", [], []]


@pytest.mark.parametrize(
    "more",
    [
        {f"key {number}": 0 for number in range(MOST_FIELDS)},
        {"x" * (MAX_KEY_CHARACTERS + 1): 0},
        {3: 0},
        {"more": "x" * MAX_RECORD_BYTES},
        {"tokens_per_s": -1.0},
        {"tokens_per_s": float("nan")},
        {"tokens_per_s": float("inf")},
        {"tokens_per_s": "fast"},
        {"state_bytes": 1 << 53},
        {"state_bytes": True},
        {"device": "x" * 33},
        {"codecs": ["int8"] * 17},
        {"codecs": "int8"},
        {"intents": [{}]},
        {"intents": [{"what": "move"}] * 9},
        {"intents": ["move"]},
    ],
    ids=str,
)
def test_records_are_bounded(fuzz: Fuzz, more: dict[Any, Any]) -> None:
    assert not is_taken(fuzz, stored(fuzz, more))


def test_what_is_skipped_is_nested_so_deep_at_the_most(fuzz: Fuzz) -> None:
    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else 1

    assert is_taken(fuzz, stored(fuzz, {"more": nested(SKIPPED_DEPTH - 1)}))
    assert not is_taken(fuzz, stored(fuzz, {"more": nested(SKIPPED_DEPTH)}))
    assert not is_taken(fuzz, stored(fuzz, {"more": tuples(MOST_NESTED)}))


def tuples(depth: int) -> Any:
    return (tuples(depth - 1),) if depth else 1


def test_deep_values_end_no_process(fuzz: Fuzz) -> None:
    """Hole: 16 KiB of hivemind's tuples in each other, and every node that read them was gone."""
    code = MSGPackSerializer._TUPLE_EXT_TYPE_CODE
    deep = b"\x90"
    while len(deep) < MAX_RECORD_BYTES - 2000:
        deep = b"\x91\xc8" + struct.pack(">HB", len(deep), code) + deep
    with pytest.raises(ValueError, match="nested more than"):
        MSGPackSerializer.loads(deep)
    real = stored(fuzz, {})
    assert not is_taken(fuzz, fuzz.stored(fuzz.real[0][0], deep))
    assert not is_taken(fuzz, DHTRecord(real.key, deep, real.value, real.expiration_time))
    assert MSGPackSerializer.loads(MSGPackSerializer.dumps(tuples(4))) == tuples(4)
