"""Steps that run on what is expected of the version that they update."""

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import Data, open_data
from swarmrt.ids import MicrobatchId
from swarmrt.model import muon
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.optimizer import clip_scale, learning_rate
from swarmrt.model.pieces import Piece, is_decayed, slots
from swarmrt.model.prediction import AT_ONCE, STEPS_AHEAD, predict
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Stage

ADAMW: dict[str, Any] = {"lr": 0.01, "warmup_steps": 2, "clip_norm": 0.5}
SGD: dict[str, Any] = {"kind": "sgd", "lr": 0.1, "clip_norm": 0.5, "warmup_steps": 1}
MOMENTUM: dict[str, Any] = {**SGD, "momentum": 0.9}
MUON: dict[str, Any] = {"kind": "muon", **ADAMW}
KINDS = {"adamw": ADAMW, "sgd": SGD, "momentum": MOMENTUM, "muon": MUON}


def run(optimizer: dict[str, Any], dtype: str = "float64") -> RunConfig:
    model = {"layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 12, "dtype": dtype}
    return parse_config(
        {
            "run": {"steps": 12},
            "model": model,
            "stages": {"layers": [1, 1]},
            "batch": {"microbatch": 2, "microbatches": 2},
            "optimizer": {"staleness": 1, "fresh_steps": 0, **optimizer},
            "data": {"source": __file__},
        },
        "test",
    )


class Loop:
    """A run as a list of its versions. Its optimizer is written down here once more."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.data, self.model = config, open_data(config), build_layers(config)
        self.whole = Slice(self.model, 0, len(self.model.layers))
        self.named, self.hidden = self.whole.trainable(), self.whole.hidden_matrices()
        first = {name: value.detach().clone() for name, value in self.named.items()}
        zeros = {name: torch.zeros_like(value) for name, value in first.items()}
        self.versions, self.first_moments, self.second_moments = [first], [zeros], [zeros]

    def train(self, steps: int) -> dict[str, Tensor]:
        for step in range(steps):
            is_fresh = step < self.config.optimizer.fresh_steps
            weights = self.versions[-1] if is_fresh else self._runs_on(max(0, step - 1))
            self._update(step, self._gradient(step, weights))
        return self.versions[-1]

    def _runs_on(self, version: int) -> dict[str, Tensor]:
        optimizer, weights = self.config.optimizer, self.versions[version]
        if not optimizer.predict or version == 0:
            return weights
        rate, found = learning_rate(self.config, version), {}
        for name, value in weights.items():
            step = self.first_moments[version][name]
            rule = self._rule(name)
            if rule == "muon":
                step = muon.direction(step.clone()) + optimizer.weight_decay * value
            elif rule == "adamw":
                mean = step / (1 - optimizer.betas[0] ** version)
                square = self.second_moments[version][name] / (1 - optimizer.betas[1] ** version)
                decay = optimizer.weight_decay if is_decayed(value) else 0.0
                step = mean / (square.sqrt() + optimizer.eps) + decay * value
            is_still = rule == "sgd" and not optimizer.momentum
            found[name] = value - (0.0 if is_still else STEPS_AHEAD * rate) * step
        return found

    def _rule(self, name: str) -> str:
        kind = self.config.optimizer.kind
        return "adamw" if kind == "muon" and name not in self.hidden else kind

    def _gradient(self, step: int, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(weights[name])
        losses, tokens = [], 0
        for index in range(self.config.batch.microbatches):
            microbatch = MicrobatchId(step, index)
            inputs, targets = map(torch.from_numpy, self.data.microbatch(microbatch))
            losses.append(self.model.loss_sum(self.whole(inputs, microbatch), targets))
            tokens += targets.numel()
        found = torch.autograd.grad(torch.stack(losses).sum() / tokens, list(self.named.values()))
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in found))
        scale = clip_scale(norm, self.config.optimizer.clip_norm)
        return {n: gradient * scale for n, gradient in zip(self.named, found, strict=True)}

    def _update(self, version: int, gradients: dict[str, Tensor]) -> None:
        optimizer, rate = self.config.optimizer, learning_rate(self.config, version)
        count, (one, two) = version + 1, optimizer.betas
        weights, firsts, seconds = {}, {}, {}
        for name, value in self.versions[-1].items():
            first, second = self.first_moments[-1][name], self.second_moments[-1][name]
            gradient, decay = gradients[name], optimizer.weight_decay if is_decayed(value) else 0.0
            rule = self._rule(name)
            if rule == "muon":
                first = optimizer.muon_momentum * first + gradient
                ahead = gradient + optimizer.muon_momentum * first
                change = muon.direction(ahead) + decay * value
            elif rule == "adamw":
                first = one * first + (1 - one) * gradient
                second = two * second + (1 - two) * gradient.square()
                root = (second / (1 - two**count)).sqrt() + optimizer.eps
                change = first / (1 - one**count) / root + decay * value
            else:
                change = first = optimizer.momentum * first + gradient + decay * value
            weights[name] = value - rate * change
            firsts[name], seconds[name] = first, second
        self.versions.append(weights)
        self.first_moments.append(firsts)
        self.second_moments.append(seconds)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest, relative to each tensor's own largest value."""
    assert set(one) == set(other)
    return max(
        float((one[name] - other[name]).abs().max() / other[name].abs().max()) for name in one
    )


@pytest.mark.parametrize("fresh_steps", [0, 3])
@pytest.mark.parametrize("predicts", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_reference_is_the_delay_that_is_meant_and_nothing_else(
    kind: dict[str, Any], predicts: bool, fresh_steps: int
) -> None:
    """Step s runs on version s - 1, or on what is expected of version s, and updates version s. The
    first ones run on the version that they update if that is wanted."""
    config = run({**kind, "predict": predicts, "fresh_steps": fresh_steps})
    assert difference(train_reference(config, 6), Loop(config).train(6)) < 1e-10


def test_a_prediction_changes_what_is_learned_and_only_with_staleness() -> None:
    def trained(optimizer: dict[str, Any]) -> dict[str, Tensor]:
        return train_reference(run({**ADAMW, **optimizer}), 4)

    assert difference(trained({"predict": True}), trained({"predict": False})) > 1e-4
    fresh, other = (trained({"staleness": 0, "predict": p}) for p in (True, False))
    assert all(torch.equal(fresh[name], other[name]) for name in other)


# ---------------------------------------------------------------------- stages


def build(config: RunConfig) -> list[Stage]:
    return [Stage(config, index) for index in range(config.num_stages)]


def compute(stages: list[Stage], data: Data, config: RunConfig, step: int) -> int:
    tokens = 0
    for index in range(config.batch.microbatches):
        microbatch = MicrobatchId(step, index)
        inputs, targets = map(torch.from_numpy, data.microbatch(microbatch))
        first, last = stages
        before = first.forward(microbatch, inputs, None)
        assert before.output is not None
        after = last.forward(microbatch, before.output, targets)
        first.backward(before, last.backward(after, None))
        tokens += after.tokens
    return tokens


def update(stages: list[Stage], config: RunConfig, tokens: int) -> None:
    means = [stage.gradients() / tokens for stage in stages]
    norm = math.sqrt(sum(float(mean.square().sum()) for mean in means))
    for stage, mean in zip(stages, means, strict=True):
        stage.step(mean, clip_scale(norm, config.optimizer.clip_norm))


def overlapped(stages: list[Stage], data: Data, config: RunConfig, steps: int) -> int:
    """Make so many versions, each while the step after it is computed already, if that is stale;
    its tokens."""
    tokens = compute(stages, data, config, 0)
    for step in range(1, steps + 1):
        if step >= config.optimizer.fresh_steps:
            newer = compute(stages, data, config, step)
            update(stages, config, tokens)
        else:
            update(stages, config, tokens)
            newer = compute(stages, data, config, step)
        tokens = newer
    return tokens


@pytest.mark.parametrize("fresh_steps", [0, 1, 3])
@pytest.mark.parametrize("predicts", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_stages_whose_steps_overlap_equal_the_reference(
    kind: dict[str, Any], predicts: bool, fresh_steps: int
) -> None:
    config = run({**kind, "predict": predicts, "fresh_steps": fresh_steps})
    stages = build(config)
    overlapped(stages, open_data(config), config, 5)
    weights = {name: t for stage in stages for name, t in stage.named_parameters_state().items()}
    assert difference(weights, train_reference(config, 5)) < 1e-10


@pytest.mark.parametrize("fresh_steps", [0, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("kind", [ADAMW, MOMENTUM, MUON], ids=["adamw", "momentum", "muon"])
def test_a_newcomer_runs_both_open_steps_on_the_very_same_weights(
    kind: dict[str, Any], dtype: str, fresh_steps: int
) -> None:
    """The one that is to be committed next, the last fresh one maybe, and the one after it."""
    config = run({**kind, "fresh_steps": fresh_steps}, dtype)
    stages, newcomers, data = build(config), build(config), open_data(config)
    overlapped(stages, data, config, 3)
    for stage, newcomer in zip(stages, newcomers, strict=True):
        stage.clear_gradients()
        newcomer.load_state(stage.state(), stage.version)
    for step in (3, 4):
        tokens = [compute(swarm, data, config, step) for swarm in (stages, newcomers)]
        for stage, newcomer in zip(stages, newcomers, strict=True):
            assert stage.gradients(step).any()
            assert torch.equal(stage.gradients(step), newcomer.gradients(step))
    for swarm in (stages, newcomers):
        update(swarm, config, tokens[0])
    assert [stage.digest() for stage in stages] == [stage.digest() for stage in newcomers]


def test_without_prediction_a_step_runs_on_the_version_before_to_the_bit() -> None:
    config = run({**ADAMW, "predict": False}, "float32")
    stages, data = build(config), open_data(config)
    overlapped(stages, data, config, 3)
    before = [stage.named_parameters_state() for stage in stages]
    update(stages, config, 48)
    for stage, weights in zip(stages, before, strict=True):
        state = stage.state()
        assert all(torch.equal(state[f"previous.{name}"], weights[name]) for name in weights)


def test_evaluation_runs_on_the_weights_that_are_exported() -> None:
    """An evaluation does not run on the weights that are expected of the version after."""
    config = run(ADAMW)
    stages, data = build(config), open_data(config)
    overlapped(stages, data, config, 4)
    fresh = build(run({**ADAMW, "staleness": 0}))
    for stage, other in zip(stages, fresh, strict=True):
        state = stage.state()
        assert any(name.startswith("previous.") for name in state)
        there = {name: t for name, t in state.items() if not name.startswith("previous.")}
        other.load_state(there, stage.version)
    microbatch = MicrobatchId(4, 0, held_out=True)
    inputs, targets = map(torch.from_numpy, data.microbatch(microbatch))
    losses = []
    for first, last in (stages, fresh):
        middle = first.forward(microbatch, inputs, None).output
        assert middle is not None
        losses.append(last.forward(microbatch, middle, targets).loss_sum)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", [ADAMW, MOMENTUM, MUON], ids=["adamw", "momentum", "muon"])
def test_whoever_adopts_an_update_of_owners_expects_the_same_as_they(kind: dict[str, Any]) -> None:
    config = run({**kind, "applied_by": "owners"}, "float32")
    owner, other = Stage(config, 0), Stage(config, 0)
    reduced = torch.randn(owner.num_parameters, generator=torch.Generator().manual_seed(0))
    half = owner.num_parameters // 2
    for _ in range(3):
        slices = (slice(0, half), slice(half, owner.num_parameters))
        made = [(s, owner.updated(owner.version, s, reduced, 0.5)) for s in slices]
        owner.adopt(made)
        other.adopt(made)
    for step in (3, 4):
        one, two = (stage._weights.copy_for(step).flat.values for stage in (owner, other))
        assert torch.equal(one, two)
        assert not torch.equal(one, owner._weights.newest.flat.values)


# ---------------------------------------------------------------------- the prediction itself


@pytest.mark.parametrize("kind", [ADAMW, MOMENTUM], ids=["adamw", "momentum"])
def test_a_prediction_does_not_depend_on_how_parameters_are_cut(kind: dict[str, Any]) -> None:
    config, size = run(kind, "float32"), 3 * (1 << 18) + 5
    whole = Piece(config.optimizer.kind, 0, size, is_decayed=True)
    draws = torch.Generator().manual_seed(0)
    rows = [torch.rand(size, generator=draws) for _ in range(3)]

    def expected(piece: slice) -> Tensor:
        values, first, second = (row[piece] for row in rows)
        moments = {"exp_avg": first, "exp_avg_sq": second, "momentum_buffer": first}
        out = torch.empty_like(values)
        predict(config, whole, 5, values, moments, 5, out=out)
        return out

    cuts = [0, 1, 77_777, size // 2, size]
    cut = [expected(slice(*pair)) for pair in zip(cuts, cuts[1:], strict=False)]
    assert torch.equal(torch.cat(cut), expected(slice(0, size)))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_that_have_seen_no_gradient_expect_nothing(kind: Literal["adamw", "muon"]) -> None:
    config, values, zeros, out = run({"kind": kind}), torch.rand(6), torch.zeros(6), torch.empty(6)
    piece = Piece(kind, 0, 6, True, torch.Size((2, 3)) if kind == "muon" else None)
    moments = {slot: zeros for slot in slots(config, kind)}
    predict(config, piece, 3, values, moments, 0, out=out)
    assert torch.equal(out, values)


def test_a_matrix_longer_than_what_is_predicted_at_once_is_predicted_as_a_whole() -> None:
    config, shape = run(MUON), torch.Size((600, AT_ONCE // 512))
    draws = torch.Generator().manual_seed(0)
    values, momentum = (torch.rand(shape, generator=draws).flatten() for _ in range(2))
    out, piece = torch.empty_like(values), Piece("muon", 0, shape.numel(), True, shape)
    predict(config, piece, 5, values, {"momentum_buffer": momentum}, 5, out=out)
    rate = STEPS_AHEAD * learning_rate(config, 5)
    step = muon.direction(momentum.view(shape).clone()).flatten()
    kept = 1 - rate * config.optimizer.weight_decay
    torch.testing.assert_close(out, values * kept - rate * step)
