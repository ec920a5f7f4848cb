"""The bytes that a round has on its way, and what they are beside a state: by the strategy."""

from __future__ import annotations

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.kernels.codecs import wire_bytes
from swarmrt.model.strategies import strategy_of
from swarmrt.runtime.peer.parts import combined_bytes
from swarmrt.runtime.peer.updates import state_gradients, turns_of

SIZE = 1 << 12
WHOLE = wire_bytes("int8", SIZE, 4)
NOT_HERE = "no_such_module:Strategy"  # nor is it looked for: it is code for peers


def run(strategy: str, **averaging: object) -> RunConfig:
    return parse_config({"averaging": {"strategy": strategy, **averaging}}, "test")


@pytest.mark.parametrize(
    ("strategy", "averaging", "bytes_of_most", "turns"),
    [
        ("async", {}, WHOLE, 1),
        ("sparta", {"share": 0.125}, wire_bytes("int8", SIZE // 8, 4), 8),
        ("sparta", {"share": 0.125, "sync_steps": 7}, wire_bytes("int8", SIZE // 8, 4), 8),
        ("diloco", {"ranges": 4}, wire_bytes("int8", SIZE // 4, 4), 4),
        ("lofi", {}, WHOLE, RunConfig().run.steps),
    ],
)
def test_most_rounds_are_of_what_the_strategy_says(
    strategy: str, averaging: dict[str, object], bytes_of_most: int, turns: int
) -> None:
    config, like = run(strategy, **averaging), torch.empty(SIZE)
    assert combined_bytes(config, like, strategy_of(config, SIZE).numel) == bytes_of_most
    assert turns_of(config) == turns


def test_without_averaging_it_is_the_whole_gradient() -> None:
    config = parse_config({"precision": {"gradients": "int8"}}, "test")
    assert combined_bytes(config, torch.empty(SIZE), lambda _: SIZE) == WHOLE
    assert turns_of(config) == 1


def test_state_is_what_a_newcomer_loads_beside_what_a_round_sends() -> None:
    anchor_bytes = 4 * SIZE
    assert state_gradients(run("async")) == anchor_bytes / WHOLE
    assert state_gradients(run("diloco")) == 2 * anchor_bytes / WHOLE, "with outer momentum"
    moments = state_gradients(run("async", sync_steps=3))
    assert moments == 3 * anchor_bytes / WHOLE, "those of the last synchronous step"
    assert state_gradients(run("sparta", share=0.125)) > 7 * state_gradients(run("async"))


def test_trainer_does_not_look_for_a_strategy_that_is_a_users_own() -> None:
    assert turns_of(run(NOT_HERE)) == 1
    assert state_gradients(run(NOT_HERE)) == 3 * 4 * SIZE / WHOLE
