from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ModelError
from swarmrt.model.build import build_layers
from swarmrt.model.partition import balanced_cut, check_stages, cut, measure, resolve


def run(**stages: object) -> RunConfig:
    model = {"layers": 5, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 8}
    return parse_config({"model": model, "stages": stages, "batch": {"microbatch": 1}}, "test")


def largest(costs: list[int], sizes: tuple[int, ...]) -> int:
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return max(sum(costs[a:b]) for a, b in pairwise(ends))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.data())
def test_the_cut_is_the_best_of_all(costs: list[int], data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, len(costs)))
    sizes = balanced_cut(costs, stages)
    assert len(sizes) == stages and sum(sizes) == len(costs) and min(sizes) >= 1
    every = (
        tuple(b - a for a, b in pairwise((0, *inner, len(costs))))
        for inner in combinations(range(1, len(costs)), stages - 1)
    )
    assert largest(costs, sizes) == min(largest(costs, other) for other in every)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=9), st.data())
def test_the_cut_is_the_best_of_those_that_train_everywhere(
    layers: list[tuple[int, bool]], data: st.DataObject
) -> None:
    costs, trained = [cost for cost, _ in layers], [is_trained for _, is_trained in layers]
    if not any(trained):
        return
    stages = data.draw(st.integers(1, sum(trained)))
    sizes = balanced_cut(costs, stages, trained)
    every = [
        tuple(b - a for a, b in pairwise((0, *inner, len(costs))))
        for inner in combinations(range(1, len(costs)), stages - 1)
    ]

    def trains_everywhere(cut: tuple[int, ...]) -> bool:
        ends = [sum(cut[:i]) for i in range(len(cut) + 1)]
        return all(any(trained[a:b]) for a, b in pairwise(ends))

    assert trains_everywhere(sizes)
    assert largest(costs, sizes) == min(largest(costs, c) for c in every if trains_everywhere(c))


def test_a_costly_end_gets_fewer_layers() -> None:
    assert balanced_cut([1, 1, 1, 1, 1, 5], 2) == (5, 1)


def test_layers_are_measured_and_equal_ones_once() -> None:
    costs = [cost.seconds for cost in measure(build_layers(run(count=2)))]
    assert len(costs) == 5 and min(costs) > 0
    assert costs[1] == costs[2] == costs[3]


def test_resolve_writes_the_cut_down() -> None:
    config = resolve(run(count=3))
    assert config.stages.layers is not None and config.num_stages == 3
    assert sum(config.stages.layers) == 5
    assert resolve(config) == config


def test_a_cut_by_hand_is_taken() -> None:
    assert cut(run(layers=[1, 4])) == (1, 4)


def test_a_cut_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="adds up to 6 layers, but the model has 5"):
        check_stages(run(layers=[3, 3]))
    with pytest.raises(ModelError, match="6 stages need .*; the model has 5"):
        cut(run(count=6))
