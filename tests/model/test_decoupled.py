"""Replicas with a momentum each: what is exact about them, and what a void round leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ModelError
from swarmrt.kernels.spectrum import Spectrum
from swarmrt.model.decoupled import Decoupled, spectrum_of
from swarmrt.model.layout import layout_from
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Stage
from tests.model.test_averaged import MICROBATCHES, compute, shares

LR = 0.01


def run(*, dtype: str = "float64", **averaging: Any) -> RunConfig:
    shape = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 8}
    optimizer = {"kind": "sgd", "lr": LR, "schedule": "constant", "warmup_steps": 0}
    how = {"strategy": "demo", "precision": "model", "chunk": 64, "top_k": 4, **averaging}
    return parse_config(
        {
            "run": {"steps": 6},
            "model": {**shape, "dtype": dtype},
            "stages": {"layers": [1]},
            "batch": {"microbatch": 2, "microbatches": MICROBATCHES},
            "optimizer": {**optimizer, "clip_norm": 0.0, "weight_decay": 0.1},
            "averaging": how,
        },
        "test",
    )


def weights(stage: Stage) -> Tensor:
    return stage._weights.masters


def momentum(stage: Stage) -> Tensor:
    assert isinstance(stage._weights, Decoupled)
    return stage._weights._momentum


def signs(config: RunConfig, given: list[Tensor]) -> Tensor:
    """Return what all take of a round."""
    of: Spectrum = spectrum_of(config)
    frequencies = torch.zeros(len(given[0]), of.chunk, dtype=of.dtype)
    for peaks in given:
        of.spread(peaks, frequencies)
    out = torch.empty(Stage(config, 0).num_parameters, dtype=of.dtype)
    of.place_signs(of.signs_of(frequencies), out)
    return out


def commit(config: RunConfig, stages: list[Stage]) -> Tensor:
    """Make the next version in all of them, and return the signs."""
    for stage in stages:
        stage.contribute(stage.version)
    given = [stage.contribution(stage.version) for stage in stages]
    agreed = signs(config, given)
    pairs = zip(stages, given, strict=True)
    assert len({stage.step(agreed, 1.0, peaks) for stage, peaks in pairs}) == 1
    return agreed


def test_all_frequencies_without_momentum_are_sign_sgd() -> None:
    """The sign of a gradient that is nothing beside what rounds in its chunk may be any."""
    config = run(top_k=64, beta=0.0)
    stages, expected = [Stage(config, 0) for _ in range(2)], weights(Stage(config, 0)).clone()
    decayed = torch.zeros_like(expected)
    for piece in stages[0]._weights.newest.flat.pieces:
        decayed[piece.where] = 0.1 if piece.is_decayed else 0.0
    known = torch.ones_like(expected, dtype=torch.bool)
    for step in range(5):
        for stage, share in zip(stages, shares(2), strict=True):
            compute(stage, step, share)
        gradient = sum(stage.gradients() for stage in stages)
        assert isinstance(gradient, Tensor)
        known &= gradient.abs() > 1e-12 * gradient.abs().max()
        expected = expected * (1 - LR * decayed) - LR * gradient.sign()
        commit(config, stages)
        assert known.sum() > 0.6 * len(known), "embeddings of tokens that do not come have none"
        assert (weights(stages[0]) - expected)[known].abs().max() < 1e-12
        assert torch.equal(weights(stages[0]), weights(stages[1]))


@pytest.mark.parametrize("precision", ["model", "bfloat16", "int8"])
def test_what_is_sent_leaves_the_momentum_and_nothing_else_is_lost(precision: str) -> None:
    config = run(dtype="float32", precision=precision, beta=0.5)
    stage, expected = Stage(config, 0), torch.zeros(())
    of = spectrum_of(config)
    for step in range(3):
        compute(stage, step, range(MICROBATCHES))
        added = torch.zeros_like(momentum(stage))
        added.view(-1)[: stage.num_parameters] = stage.gradients()
        before = momentum(stage) * 0.5 + added
        commit(config, [stage])
        assert momentum(stage).norm() < before.norm()
        again = Spectrum(of.chunk, of.chunk, "model", of.dtype)
        lost = again.spread(again.take_peaks(before - momentum(stage)), torch.zeros_like(before))
        assert int((lost.abs() > 1e-4 * lost.abs().max()).sum(dim=1).max()) <= 4
        expected = expected + lost.norm()
    assert expected > 0


def test_void_round_changes_nothing_and_the_next_has_what_is_added_by_then() -> None:
    config = run()
    plain, tried = Stage(config, 0), Stage(config, 0)
    for stage in (plain, tried):
        compute(stage, 0, range(MICROBATCHES))
        commit(config, [stage])
        compute(stage, 1, range(3))
    before = (tried.digest(), momentum(tried).clone(), tried.gradients().clone())
    for _ in range(2):
        tried.contribute(1)
    assert (tried.digest(), *map(torch.Tensor.tolist, (momentum(tried), tried.gradients()))) == (
        before[0],
        *map(torch.Tensor.tolist, before[1:]),
    )
    for stage in (plain, tried):
        compute(stage, 1, range(3, MICROBATCHES))
        commit(config, [stage])
    assert torch.equal(weights(plain), weights(tried))
    assert torch.equal(momentum(plain), momentum(tried))


def test_work_that_is_void_leaves_the_momentum_of_versions() -> None:
    """Only a round that this replica gave something to, and that is applied, changes it."""
    config = run()
    stage = Stage(config, 0)
    compute(stage, 0, range(MICROBATCHES))
    agreed = commit(config, [stage])
    kept = momentum(stage).clone()
    compute(stage, 1, range(MICROBATCHES))
    stage.contribute(1)
    stage.clear_gradients()
    stage.step(agreed, 1.0)  # a round of others
    assert torch.equal(momentum(stage), kept) and stage.version == 2
    stage.skip()
    assert torch.equal(momentum(stage), kept)


def test_version_that_was_prepared_before_work_was_void_takes_what_was_given() -> None:
    config = run()
    stages = [Stage(config, 0) for _ in range(2)]
    for stage in stages:
        compute(stage, 0, range(MICROBATCHES))
        stage.contribute(0)
    given = [stage.contribution(0) for stage in stages]
    stages[1].clear_gradients()
    for stage, peaks in zip(stages, given, strict=True):
        stage.step(signs(config, given), 1.0, peaks)
    assert torch.equal(momentum(stages[0]), momentum(stages[1])) and momentum(stages[0]).any()


def test_newcomer_has_the_weights_and_no_momentum() -> None:
    config = run(dtype="bfloat16")
    stage, newcomer = Stage(config, 0), Stage(config, 0)
    for step in range(2):
        compute(stage, step, range(MICROBATCHES))
        commit(config, [stage])
    compute(newcomer, 0, range(MICROBATCHES))
    commit(config, [newcomer])
    newcomer.load_state(stage.state(), 2)
    assert newcomer.digest() == stage.digest() and not momentum(newcomer).any()
    layout_from(config, 0).check(stage.state(), "", "its state")


def test_one_process_has_no_replicas_with_momenta() -> None:
    with pytest.raises(ModelError, match="averaging.strategy 'demo' has replicas that differ"):
        train_reference(run(), 1)
