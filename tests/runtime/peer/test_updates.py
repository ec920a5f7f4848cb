"""The state after an update, put together of what its owners made, by hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.ids import PeerId
from swarmrt.model.stage import Stage
from swarmrt.runtime.peer.parts import part_range
from swarmrt.runtime.peer.updates import Updates, made_of, state_gradients
from swarmrt.runtime.trainer.unlike import NAME, read_unlike, write_unlike
from swarmrt.scheduler.events import PartUnfit, UpdateJoined
from swarmrt.scheduler.instructions import DropPart, JoinUpdate, KeepPart, UpdatePart

A, B, C = map(PeerId, ("a", "b", "c"))
PARTS = 3
OWNERS = (A, B, C)
JOIN = JoinUpdate(0, 7, PARTS, OWNERS, 1.0)


def config(**optimizer: object) -> RunConfig:
    model = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 8, "dtype": "float64"}
    return parse_config({"model": model, "stages": {"layers": [1]}, "optimizer": optimizer}, "test")


def part(index: int, numel: int, rows: int = 3) -> torch.Tensor:
    where = part_range(numel, index, PARTS)
    return torch.full((rows * (where.stop - where.start),), float(index), dtype=torch.float64)


@pytest.mark.parametrize("optimizer", [{"kind": "adamw"}, {"kind": "sgd"}, {"kind": "muon"}])
def test_all_adopt_what_the_owners_made(optimizer: dict[str, object]) -> None:
    """The last one hears of the round when all of it has come."""
    stages = [Stage(config(**optimizer), 0) for _ in range(PARTS)]
    replicas = [Updates(me, stage) for me, stage in zip(OWNERS, stages, strict=True)]
    mean = torch.linspace(-1, 1, stages[0].num_parameters, dtype=torch.float64)
    for index, owner in enumerate(replicas):
        state = owner.state(0, 7, PARTS)
        owner.make(UpdatePart(0, 7, index, PARTS, 1.0), state, stages[index], mean, 0.5)
        for other in replicas:
            made = state.part(index)
            assert other.fits([made])
            keep = KeepPart(A, 0, 7, index, True, PARTS, True)
            if other is not owner and other is replicas[-1]:
                other.keep(keep, made)
            elif other is not owner:
                assert other.unfit(keep, index, A, made) is None
                other.place(other.state(0, 7, PARTS), index, made)
    states, digests = set(), set()
    for replica, stage in zip(replicas, stages, strict=True):
        early = replica.take_early(JOIN)
        assert not isinstance(early, PartUnfit)
        expected = partial(made_of, stage, 0, mean, 0.5)
        joined = replica.join(JOIN, replica.state(0, 7, PARTS), early, expected)
        assert isinstance(joined, UpdateJoined)
        states.add(joined.digest)
        digests.add(stage.adopt(replica.take(0, 7).pieces()))
    assert len(states) == len(digests) == 1
    alone = Stage(config(**optimizer), 0)
    alone.step(mean, 0.5)
    for name, values in alone.state().items():
        torch.testing.assert_close(stages[0].state()[name], values)


@pytest.mark.parametrize("wrong_by", [0.1, math.nan, math.inf])
@pytest.mark.parametrize("row", range(3))
def test_member_names_an_owner_whose_part_no_update_makes(row: int, wrong_by: float) -> None:
    stage = Stage(config(), 0)
    updates, mean = Updates(A, stage), torch.ones(stage.num_parameters, dtype=torch.float64)
    state = updates.state(0, 7, PARTS)
    for index in range(PARTS):
        updates.make(UpdatePart(0, 7, index, PARTS, 1.0), state, stage, mean, 1.0)
    expected = partial(made_of, stage, 0, mean, 1.0)
    state.part(1).mul_(1 + 1e-12)
    assert isinstance(updates.join(JOIN, state, {}, expected), UpdateJoined), "it is rounded"
    state.part(1).view(3, -1)[row, -1] += wrong_by
    unfit = updates.join(JOIN, state, {}, expected)
    assert isinstance(unfit, PartUnfit) and unfit.sender == B
    assert isinstance(updates.join(JOIN, state, {}), UpdateJoined), "a newcomer cannot tell"


@pytest.mark.parametrize("row", range(4))
def test_member_names_an_owner_whose_part_muon_does_not_make(row: int) -> None:
    """Part 0 has all of the hidden matrices, and some of what goes with AdamW."""
    stage = Stage(config(kind="muon"), 0)
    updates = Updates(B, stage)
    mean = torch.linspace(-1, 1, stage.num_parameters, dtype=torch.float64)
    state = updates.state(0, 7, PARTS)
    for index in range(PARTS):
        updates.make(UpdatePart(0, 7, index, PARTS, 1.0), state, stage, mean, 1.0)
    expected = partial(made_of, stage, 0, mean, 1.0)
    assert isinstance(updates.join(JOIN, state, {}, expected), UpdateJoined)
    lengths = stage.row_lengths(state.where(0))
    assert all(lengths), "of all rows"
    torch.split(state.part(0), lengths)[row][-1] += 0.1
    unfit = updates.join(JOIN, state, {}, expected)
    assert isinstance(unfit, PartUnfit) and unfit.sender == A


def test_part_of_another_length_is_unfit_early_or_not() -> None:
    stage = Stage(config(), 0)
    updates, good = Updates(A, stage), part(0, stage.num_parameters)
    keep = KeepPart(B, 0, 7, 0, True, PARTS, True)
    assert updates.unfit(keep, 0, B, good) is None
    unfit = updates.unfit(keep, 0, B, good[1:])
    assert unfit is not None and unfit.sender == B
    updates.keep(keep, good[1:])
    early = updates.take_early(JOIN)
    assert isinstance(early, PartUnfit) and early.sender == B


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [torch.zeros(8, dtype=torch.float64)] * 2,
        [torch.zeros(8, dtype=torch.float32)],
        [torch.zeros(2, 4, dtype=torch.float64)],
        [torch.zeros((1 << 19) + 8, dtype=torch.float64)],
    ],
)
def test_what_is_no_part_of_a_state_does_not_fit(tensors: list[torch.Tensor]) -> None:
    assert not Updates(A, Stage(config(), 0)).fits(tensors)


def test_void_round_leaves_nothing() -> None:
    stage = Stage(config(), 0)
    updates = Updates(A, stage)
    updates.keep(KeepPart(B, 0, 7, 0, True, 0, True), part(0, stage.num_parameters))
    updates.keep(KeepPart(C, 0, 8, 0, True, 0, True), part(0, stage.num_parameters))
    first = updates.state(0, 7, PARTS)
    updates.drop(0, 7)
    assert updates.take_early(JOIN) == {}
    assert updates.state(0, 7, PARTS) is not first
    updates.drop_part(DropPart(C, 0, 8, 0, True, True))
    assert updates.take_early(JoinUpdate(0, 8, PARTS)) == {}


def test_a_state_is_so_many_gradients_on_the_wire() -> None:
    assert state_gradients(config()) == 3.0
    assert state_gradients(config(kind="muon")) == 3.0, "at the most"
    assert state_gradients(config(kind="sgd")) == 1.0
    assert state_gradients(config(kind="sgd", momentum=0.9)) == 2.0


def test_unlike_stages_are_remembered(tmp_path: Path) -> None:
    assert read_unlike(tmp_path) == ()
    (tmp_path / NAME).parent.mkdir()
    write_unlike(tmp_path, (0, 2))
    assert read_unlike(tmp_path) == (0, 2)
