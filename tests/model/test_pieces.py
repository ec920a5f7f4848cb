"""The pieces that an update takes at a time, and the order of a stage's parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.model.pieces import Piece, Row, in_order, most_rows, pieces_of, range_of, slots_of

SHAPES = {"b": (4, 3), "norm": (3,), "a": (2, 2, 2), "hidden.z": (5, 2), "hidden.y": (2, 3)}
PARAMETERS = {name: torch.empty(shape) for name, shape in SHAPES.items()}
HIDDEN = {"hidden.z", "hidden.y"}
REST = [Piece("adamw", 16, 36, True), Piece("adamw", 36, 39, False)]


def config(**optimizer: Any) -> RunConfig:
    return parse_config({"optimizer": optimizer}, "test")


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_works_value_by_value_takes_all_matrices_and_then_all_vectors(kind: Any) -> None:
    run = config(kind=kind)
    assert in_order(run, PARAMETERS, HIDDEN) == ["a", "b", "hidden.y", "hidden.z", "norm"]
    assert pieces_of(run, PARAMETERS, HIDDEN) == [
        Piece(kind, 0, 36, True),
        Piece(kind, 36, 39, False),
    ]


def test_muon_takes_each_hidden_matrix_and_adamw_the_rest() -> None:
    run = config(kind="muon")
    assert in_order(run, PARAMETERS, HIDDEN) == ["hidden.y", "hidden.z", "a", "b", "norm"]
    pieces = pieces_of(run, PARAMETERS, HIDDEN)
    shapes = [torch.Size(SHAPES[name]) for name in ("hidden.y", "hidden.z")]
    first, second = Piece("muon", 0, 6, True, shapes[0]), Piece("muon", 6, 16, True, shapes[1])
    assert pieces == [first, second, *REST]
    assert slots_of(run, pieces) == ["momentum_buffer", "exp_avg", "exp_avg_sq"]
    assert range_of(run, pieces, "momentum_buffer") == slice(0, 16)
    assert range_of(run, pieces, "exp_avg_sq") == slice(16, 39)


@pytest.mark.parametrize(
    ("optimizer", "most"),
    [({}, 3), ({"kind": "muon"}, 3), ({"kind": "sgd"}, 1), ({"kind": "sgd", "momentum": 0.9}, 2)],
    ids=str,
)
def test_an_update_changes_a_parameter_and_its_moments(optimizer: Any, most: int) -> None:
    assert most_rows(config(**optimizer)) == most


def test_a_row_has_of_a_slice_what_lies_in_it() -> None:
    row = Row(10, torch.arange(10, 20))
    assert row.of(slice(0, 10)).tolist() == row.of(slice(20, 30)).tolist() == []
    assert row.of(slice(5, 12)).tolist() == [10, 11] and row.of(slice(18, 25)).tolist() == [18, 19]
    copy = row.copy_of(slice(12, 15))
    assert copy.start == 12 and copy.of(slice(0, 14)).tolist() == [12, 13]
    copy.values.zero_()
    assert row.of(slice(12, 15)).tolist() == [12, 13, 14]
