"""Replicas that go apart and are averaged: what is exact about them, whatever they do meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.builders import check_consent
from swarmrt.model.layout import layout_from
from swarmrt.model.optimizer import learning_rate
from swarmrt.model.own_steps import Added, bound_of, rate_of
from swarmrt.model.probe import probe
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Forwarded, Stage

SGD: dict[str, Any] = {
    "kind": "sgd",
    "lr": 0.1,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}
ADAMW = {"lr": 0.01, "warmup_steps": 2, "clip_norm": 0.5}
STRATEGIES: dict[str, dict[str, Any]] = {
    "async": {},
    "diloco": {},
    "diloco in ranges": {"ranges": 3, "alpha": 0.5},
    "sparta": {"share": 0.3},
    "lofi": {},
    "async after sync": {"sync_steps": 2},
}
MICROBATCHES = 6


def run(
    strategy: str, optimizer: dict[str, Any] | None = None, *, steps: int = 6, **more: Any
) -> RunConfig:
    """Return a run, of one stage if nothing is said; what is not about averaging is about the
    model."""
    averaging = {key: more.pop(key) for key in AVERAGING & more.keys()}
    microbatches = more.pop("microbatches", MICROBATCHES)
    stages = more.pop("stages", 1)
    shape = {"layers": stages, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 8}
    return parse_config(
        {
            "run": {"steps": steps},
            "model": {**shape, "dtype": "float64", **more},
            "stages": {"layers": [1] * stages},
            "batch": {"microbatch": 2, "microbatches": microbatches},
            "optimizer": ADAMW if optimizer is None else optimizer,
            "averaging": {
                "strategy": strategy.split()[0],
                "precision": "model",
                "local_batch": 2,
                **averaging,
            },
        },
        "test",
    )


AVERAGING = {
    "local_batch", "sync_steps", "islands", "share", "ranges", "outer_lr", "outer_momentum", "alpha"
}  # fmt: skip


def data(number: int) -> tuple[Tensor, Tensor]:
    """Return the number-th microbatch of all."""
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(0, 256, (2, 9), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def forward(stage: Stage, step: int, index: int, per_step: int = MICROBATCHES) -> Forwarded:
    return stage.forward(MicrobatchId(step, index), *data(step * per_step + index))


def compute(stage: Stage, step: int, indices: Iterable[int], per_step: int = MICROBATCHES) -> None:
    for index in indices:
        stage.backward(forward(stage, step, index, per_step), None)


def shares(replicas: int, per_step: int = MICROBATCHES) -> list[range]:
    """Return whose microbatch is whose: to each replica every so many."""
    return [range(first, per_step, replicas) for first in range(replicas)]


def mean(config: RunConfig, stages: list[Stage]) -> Tensor:
    """Return what all take of a round of the step that comes next."""
    step, count = stages[0].version, config.batch.microbatches
    for stage in stages:
        stage.contribute(step)
    is_sync = not config.averaging.is_on or step < config.averaging.sync_steps
    divisor = count * config.microbatch_tokens if is_sync else count
    return torch.stack([stage.contribution(step) for stage in stages]).sum(dim=0) / divisor


def train(config: RunConfig, replicas: int = 2, steps: int | None = None) -> list[Stage]:
    """Train without delay: a round comes when its step is computed."""
    stages = [Stage(config, 0) for _ in range(replicas)]
    per_step = config.batch.microbatches
    for step in range(config.run.steps if steps is None else steps):
        for stage, share in zip(stages, shares(replicas, per_step), strict=True):
            compute(stage, step, share, per_step)
        reduced = mean(config, stages)
        assert len({stage.step(reduced, 1.0) for stage in stages}) == 1
    return stages


def anchor(stage: Stage) -> Tensor:
    return stage._weights.masters


def own(stage: Stage) -> Tensor:
    """Return a replica's own weights, which differ from those of others."""
    return stage._weights.updated.masters


def near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-12)


# ---------------------------------------------------------------------- forward and backward


def stashed(config: RunConfig) -> Tensor:
    """Return the gradient of one microbatch, forward and backward on the same weights."""
    stage = Stage(config, 0)
    compute(stage, 0, [0])
    return stage.gradients(0).clone()


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_of_its_own_between_forward_and_backward_leaves_the_gradient_as_it_is(
    recompute: bool,
) -> None:
    config = run("async", recompute=recompute)
    stage = Stage(config, 0)
    before = forward(stage, 0, 0)
    compute(stage, 0, [1, 2])
    assert not near(own(stage), anchor(stage)), "it has made a step"
    stage.backward(before, None)
    assert torch.equal(stage.gradients(0), stashed(config))


def test_a_step_in_place_would_not_be_noticed_and_gives_another_gradient() -> None:
    config = run("async")
    stage = Stage(config, 0)
    before = forward(stage, 0, 0)
    compute(stage, 0, [1, 2])
    assert before.graph is not None
    before.graph.copy.flat.values.copy_(own(stage))
    stage.backward(before, None)
    assert not near(stage.gradients(0), stashed(config))


def test_gradients_add_up_while_graphs_hang_on_both_copies() -> None:
    stage = Stage(run("async", local_batch=1, microbatches=9), 0)
    first = forward(stage, 0, 0)
    compute(stage, 0, [1])  # a step, which goes to the other copy
    second = forward(stage, 0, 2)
    assert first.graph and second.graph and first.graph.copy is not second.graph.copy
    weights = own(stage).clone()
    compute(stage, 0, [3, 4])
    assert torch.equal(own(stage), weights)
    stage.backward(first, None)
    assert not near(own(stage), weights), "the three that were waiting, once a copy is free"
    assert not stage.gradients(0).any()


def test_whoever_forgets_a_forward_frees_its_copy() -> None:
    stage = Stage(run("async", local_batch=1), 0)
    forgotten = [forward(stage, 0, 0)]
    compute(stage, 0, [1])
    kept = forward(stage, 0, 2)
    weights = own(stage).clone()
    forgotten.clear()
    compute(stage, 0, [3])
    assert kept.graph is not None and not near(own(stage), weights)


def test_a_microbatch_that_newer_weights_have_overtaken_is_late() -> None:
    config = run("async")
    stage = Stage(config, 0)
    before = forward(stage, 0, 0)
    compute(stage, 0, [1, 2])
    stage.backward(before, None)
    stage.step(mean(config, [stage]), 1.0)
    report = stage.local_report()
    assert report.late_fraction == pytest.approx(1 / 3)
    assert report.steps == 2 and report.drift > 0


def test_gradients_that_are_left_for_later_count_once_they_are_added() -> None:
    config = run("async", width=512, sequence=64)
    at_once, later = Stage(config, 0), Stage(config, 0)
    tokens = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(0))
    for stage in (at_once, later):
        lefts = [
            stage.forward(MicrobatchId(0, index), tokens[:, :-1], tokens[:, 1:])
            for index in range(2)
        ]
        for forwarded in lefts:
            stage.backward(forwarded, None, later=stage is later)
        assert stage is at_once or torch.equal(own(stage), anchor(stage))
        for forwarded in lefts:
            stage.add_weight_gradients(forwarded)
    assert near(own(at_once), own(later)) and not near(own(later), anchor(later))


def test_gradients_that_are_not_finite_are_left_where_they_are_found() -> None:
    stage = Stage(run("async", local_batch=1), 0)
    weights = own(stage).clone()
    forwarded = forward(stage, 0, 0)
    assert forwarded.graph is not None and forwarded.graph.end is not None
    forwarded.graph.end = forwarded.graph.end * math.nan
    stage.backward(forwarded, None)
    assert torch.equal(own(stage), weights) and not stage.gradients(0).isfinite().all()


# ---------------------------------------------------------------------- identities


def test_averaging_every_step_of_sgd_is_synchronous_sgd() -> None:
    """Shares are unequal: the weights of contributions are their microbatches."""
    settings = {**SGD, "weight_decay": 0.1}
    together = train(run("sync", settings), 1)
    config = run("async", settings, local_batch=MICROBATCHES)
    apart = [Stage(config, 0) for _ in range(2)]
    for step in range(config.run.steps):
        compute(apart[0], step, [0, 2, 3, 5])
        compute(apart[1], step, [1, 4])
        reduced = mean(config, apart)
        for stage in apart:
            stage.step(reduced, 1.0)
    assert near(anchor(together[0]), anchor(apart[0]))


def test_diloco_with_plain_outer_steps_is_averaging() -> None:
    plain = train(run("async"))
    outer = train(run("diloco", outer_lr=1.0, outer_momentum=0.0))
    assert torch.equal(anchor(plain[0]), anchor(outer[0]))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_outer_step_is_torchs_sgd_with_nesterov_momentum(momentum: float) -> None:
    config = run("diloco", outer_lr=0.7, outer_momentum=momentum)
    stages = [Stage(config, 0) for _ in range(2)]
    weights = torch.nn.Parameter(anchor(stages[0]).clone())
    outer = torch.optim.SGD([weights], lr=0.7, momentum=momentum, nesterov=momentum > 0)
    for step in range(4):
        for stage, share in zip(stages, shares(2), strict=True):
            compute(stage, step, share)
        reduced = mean(config, stages)
        for stage in stages:
            stage.step(reduced, 1.0)
        weights.grad = -reduced
        outer.step()
        assert near(weights.detach(), anchor(stages[0]))


def test_one_range_without_delay_is_diloco() -> None:
    whole, streamed = train(run("diloco")), train(run("diloco", ranges=1, alpha=0.0))
    assert torch.equal(anchor(whole[0]), anchor(streamed[0]))


def test_ranges_that_take_turns_are_all_merged_when_each_has_had_its() -> None:
    """The moves in a range are those of all steps since its last turn."""
    config = run("diloco", steps=7, ranges=3, outer_lr=1.0, outer_momentum=0.0)
    stages, begun = [Stage(config, 0)], anchor(Stage(config, 0))
    for step in range(3):
        compute(stages[0], step, range(MICROBATCHES))
        before = anchor(stages[0]).clone()
        stages[0].step(mean(config, stages), 1.0)
        moved = (anchor(stages[0]) != before).nonzero().flatten()
        numel = len(before)
        assert step * numel // 3 <= moved.min() and moved.max() < (step + 1) * numel // 3
    assert not near(anchor(stages[0]), begun)


def test_a_replica_without_a_microbatch_keeps_what_is_not_averaged_yet() -> None:
    config = run("sparta", share=0.5, steps=9)
    stages = [Stage(config, 0) for _ in range(2)]
    second = stages[0]._weights.contribution_numel(0)
    moved: Tensor | None = None
    for step, busy in enumerate((stages, stages[:1], stages)):
        for stage in busy:
            compute(stage, step, range(busy.index(stage), MICROBATCHES, len(busy)))
        if step == 1:
            moved = (own(stages[1]) - anchor(stages[1]))[second:]
        reduced = mean(config, stages)
        assert stages[0].step(reduced, 1.0) == stages[1].step(reduced, 1.0)
        if step == 1:
            kept = (own(stages[1]) - anchor(stages[1]))[second:]
            assert moved is not None and moved.any() and near(kept, moved)


def test_a_replica_that_keeps_all_of_its_weights_never_merges() -> None:
    kept = train(run("async", alpha=1.0), steps=5)
    alone = train(run("lofi"), steps=5)
    for one, other in zip(kept, alone, strict=True):
        assert near(own(one), own(other))
    assert near(anchor(kept[0]), torch.stack([own(stage) for stage in alone]).mean(dim=0))


def test_one_round_at_the_end_is_lofi() -> None:
    settings = {**SGD, "momentum": 0.9}
    whole: dict[str, int] = {"steps": 1, "microbatches": 3 * MICROBATCHES}
    once = train(run("async", settings, local_batch=3, **whole))
    last = train(run("lofi", settings, local_batch=3, steps=3))
    assert near(anchor(once[0]), anchor(last[0]))


def test_sparta_of_all_parameters_is_averaging() -> None:
    assert torch.equal(anchor(train(run("async"))[0]), anchor(train(run("sparta", share=1.0))[0]))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_last_round_leaves_nothing_apart(kind: str) -> None:
    config = run(kind, **STRATEGIES[kind] | {"alpha": 0.0})
    for stage in train(config):
        assert torch.equal(own(stage), anchor(stage))


def test_first_steps_in_sync_are_those_of_sync_to_the_bit() -> None:
    together = train(run("sync"), steps=3)
    apart = train(run("async", sync_steps=3), steps=3)
    assert together[0].digest() == apart[0].digest()
    assert all(torch.equal(own(stage), anchor(stage)) for stage in apart)


# ---------------------------------------------------------------------- rounds


def in_the_background(config: RunConfig, rounds: int) -> list[Stage]:
    """Train with each round over only when the step after has been worked on."""
    stages = [Stage(config, 0) for _ in range(3)]
    for step in range(rounds):
        overlaps = step >= config.fresh_steps
        for stage, share in zip(stages, shares(3), strict=True):
            compute(stage, step, share[1:] if overlaps else share)
        reduced = mean(config, stages)
        if step + 1 >= config.fresh_steps:
            for stage, share in zip(stages, shares(3), strict=True):
                compute(stage, step + 1, share[:1])
        assert len({stage.step(reduced, 0.5) for stage in stages}) == 1
    return stages


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("kind", STRATEGIES)
def test_replicas_hold_one_anchor_whatever_they_do_meanwhile(kind: str, dtype: str) -> None:
    config = run(kind, dtype=dtype, local_batch=1, **STRATEGIES[kind])
    stages = in_the_background(config, rounds=5)
    assert len({stage.digest() for stage in stages}) == 1
    states = [stage.state() for stage in stages]
    for name, values in states[0].items():
        assert all(torch.equal(values, state[name]) for state in states), name
    assert not torch.equal(own(stages[0]), own(stages[1]))


def test_what_is_done_for_the_step_after_stays_out_of_a_round_and_is_kept() -> None:
    config = run("async")
    early, late = Stage(config, 0), Stage(config, 0)
    for stage in (early, late):
        compute(stage, 0, range(MICROBATCHES))
    early.contribute(0)
    compute(late, 1, [0, 1])
    late.contribute(0)
    assert near(early.contribution(0), late.contribution(0))
    moved = own(late) - own(early)
    late.step(torch.zeros_like(own(late)), 1.0)
    assert near(own(late) - anchor(late), moved) and moved.any()


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_round_that_is_void_changes_nothing(kind: str) -> None:
    config = run(kind, **STRATEGIES[kind])
    tried, plain = ([Stage(config, 0) for _ in range(2)] for _ in range(2))
    for step in range(4):
        for stages in (tried, plain):
            for stage, share in zip(stages, shares(2), strict=True):
                compute(stage, step, share)
        lost = mean(config, tried)
        weights, digests = own(tried[0]).clone(), [stage.digest() for stage in tried]
        reduced = mean(config, tried)
        assert torch.equal(lost, reduced) and torch.equal(weights, own(tried[0]))
        assert digests == [stage.digest() for stage in tried]
        for stages in (tried, plain):
            again = mean(config, stages)
            for stage in stages:
                stage.step(again, 1.0)
    assert tried[0].digest() == plain[0].digest()
    assert torch.equal(own(tried[1]), own(plain[1]))


def test_after_a_void_round_more_may_be_contributed() -> None:
    config = run("async", SGD, local_batch=1)
    stage, at_once = Stage(config, 0), Stage(config, 0)
    compute(stage, 0, [0, 1])
    stage.contribute(0)
    two = stage.contribution(0).clone()
    compute(stage, 0, [2])
    compute(at_once, 0, [0, 1, 2])
    for each in (stage, at_once):
        each.contribute(0)
    assert torch.equal(stage.contribution(0), at_once.contribution(0))
    assert not near(stage.contribution(0), two)


def test_what_is_void_is_lost_as_a_whole() -> None:
    stage, fresh = Stage(run("async"), 0), Stage(run("async"), 0)
    compute(stage, 0, range(MICROBATCHES))
    compute(stage, 1, [0, 1, 2])
    stage.clear_gradients()
    assert torch.equal(own(stage), anchor(fresh)) and stage.digest() == fresh.digest()
    assert not stage.gradients(0).any() and not stage.gradients(1).any()
    stage.contribute(0)
    assert not stage.contribution(0).any()


def test_a_step_that_is_skipped_takes_with_it_what_came_of_it_and_no_more() -> None:
    stage, other = Stage(run("async"), 0), Stage(run("async"), 0)
    begun = anchor(stage).clone()
    compute(stage, 0, range(MICROBATCHES))
    weights = own(stage).clone()
    compute(stage, 1, [0, 1])
    ahead = own(stage) - weights
    assert stage.skip() == other.skip() and torch.equal(anchor(stage), begun)
    assert near(own(stage) - begun, ahead) and ahead.any()


def test_a_contribution_is_of_the_step_that_is_applied_next() -> None:
    stage = Stage(run("async"), 0)
    with pytest.raises(ValueError, match="step 1 is not"):
        stage.contribute(1)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_length_of_a_contribution_is_known_before_it_is_made(kind: str) -> None:
    config = run(kind, **STRATEGIES[kind])
    told = Stage(config, 0)
    lengths = [told.contribution_numel(step) for step in range(config.run.steps)]
    for step, stages in enumerate(train(config, steps=count)[0] for count in range(6)):
        stages.contribute(step)
        assert lengths[step] == len(stages.contribution(step))
    assert lengths[-1] == told.num_parameters


# ---------------------------------------------------------------------- states


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("joins_at", [1, 3])
def test_a_newcomer_takes_part_without_a_microbatch(kind: str, dtype: str, joins_at: int) -> None:
    config = run(kind, dtype=dtype, **STRATEGIES[kind])
    stages = train(config, steps=joins_at)
    new = Stage(config, 0)
    new.load_state(stages[1].state(), joins_at)
    assert new.digest() == stages[0].digest()
    for stage, share in zip(stages, shares(2), strict=True):
        compute(stage, joins_at, share)
    reduced = mean(config, stages)
    assert len({stage.step(reduced, 1.0) for stage in (*stages, new)}) == 1
    compute(new, joins_at + 1, [0, 1])
    assert not torch.equal(own(new), own(stages[0]))


def test_a_stage_that_loads_a_state_has_nothing_of_its_own_left() -> None:
    config = run("async")
    stage, state = Stage(config, 0), Stage(config, 0).state()
    compute(stage, 0, range(MICROBATCHES))
    stage.load_state(state, 4)
    fresh = Stage(config, 0)
    fresh.load_state(state, 4)
    for each in (stage, fresh):
        compute(each, 4, range(MICROBATCHES))
    assert torch.equal(own(stage), own(fresh))


# ---------------------------------------------------------------------- rates and clipping


def test_rates_follow_the_data_whoever_steps_how_often() -> None:
    config = run("async", {"lr": 1.0, "warmup_steps": 2, "schedule": "linear"}, steps=10)
    parts = [learning_rate(config, part / 4, 0.25) for part in range(40)]
    whole = [learning_rate(config, step) for step in range(10)]
    assert parts[3:8:4] == whole[:2], "they end where the step does"
    assert max(parts) == 1.0 and parts[-1] == pytest.approx(whole[-1]) == pytest.approx(0.1)
    assert all(one >= other for one, other in zip(parts[8:], parts[9:], strict=False))


@pytest.mark.parametrize(("stages", "replicas"), [(1, 1), (1, 2), (4, 3)])
def test_a_bound_on_the_norm_is_wider_for_fewer_microbatches_and_less_for_a_stage(
    stages: int, replicas: int
) -> None:
    config = run("async", SGD | {"clip_norm": 2.0}, stages=stages, local_batch=2)
    whole = min(MICROBATCHES, 2 * replicas)
    for count in (1, 2):
        bound = 2.0 * math.sqrt(whole / count / stages)
        assert bound_of(config, count, replicas) == pytest.approx(bound)
    assert bound_of(run("async", SGD), 1, 1) == 0, "none"


@pytest.mark.parametrize(("kind", "power"), [("sgd", 1.0), ("adamw", 0.5), ("muon", 0.5)])
def test_own_steps_of_more_microbatches_go_further(kind: str, power: float) -> None:
    optimizer = {"kind": kind, "schedule": "constant", "warmup_steps": 0, "lr": 1.0}
    config = run("async", optimizer, local_batch=2, microbatches=64)
    added = Added()
    for index in range(8):
        added.add(index)
    assert rate_of(config, 0, added, 1.0) == pytest.approx((8 / 2) ** power)
    added.waiting = [7]
    assert rate_of(config, 0, added, 1.0) == pytest.approx(1 / 2), "it is what is left over"


@pytest.mark.parametrize(("kind", "further"), [("sgd", 1.0), ("adamw", 2.0), ("muon", 2.0)])
def test_own_steps_go_further_the_more_replicas_are_averaged(kind: str, further: float) -> None:
    """What they have in common is less beside the noise of fewer microbatches."""
    optimizer = {"kind": kind, "schedule": "constant", "warmup_steps": 0, "lr": 1.0}
    config = run("async", optimizer, local_batch=1)
    added = Added()
    added.add(0)
    assert rate_of(config, 0, added, 8.0) == pytest.approx(further)
    assert rate_of(config, 0, added, 2.0) == rate_of(config, 0, added, 1.0) == 1.0


def test_a_step_of_its_own_is_clipped_by_the_share_that_a_replica_had_before() -> None:
    config = run("async", SGD | {"clip_norm": 1e-3}, local_batch=3)
    stage = Stage(config, 0)
    for step, bound in ((0, 1e-3), (1, 1e-3 * math.sqrt(2))):
        before = own(stage).clone()
        compute(stage, step, range(3))
        assert float((own(stage) - before).norm()) == pytest.approx(0.1 * bound)
        stage.contribute(step)
        stage.step(stage.contribution(step) / MICROBATCHES, 1.0)


def test_what_is_left_over_weighs_no_more_than_what_went_before() -> None:
    config = run("async", SGD, local_batch=4)
    stage = Stage(config, 0)
    compute(stage, 0, range(4))
    before = own(stage).clone()
    compute(stage, 0, [4])
    gradient = stage.gradients(0).clone() / config.microbatch_tokens
    stage.contribute(0)
    assert near(before - own(stage), 0.1 * gradient / 4)


# ---------------------------------------------------------------------- one's own

OWN = """
from swarmrt.averaging import Strategy

class Half(Strategy):
    def advance(self, anchor, move, slots):
        anchor.add_(move * 0.5)

class Broken(Half):
    def __init__(self, config, num_parameters):
        raise RuntimeError("no")

class NoStrategy: ...
half = Half
"""


@pytest.fixture
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_strategies.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_own_module")
def test_a_strategy_of_ones_own_is_named_by_its_path() -> None:
    half = train(run("own_strategies:Half"), steps=3)
    outer = train(run("diloco", outer_lr=0.5, outer_momentum=0.0), steps=3)
    assert torch.equal(anchor(half[0]), anchor(outer[0]))


@pytest.mark.usefixtures("_own_module")
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("own_strategies:NoStrategy", "has no class 'NoStrategy' that is a swarmrt.averaging"),
        ("own_strategies:Missing", "has no class 'Missing'"),
        ("own_strategies:Broken", "cannot be made: RuntimeError: no"),
        ("no_such_module:Half", "cannot import no_such_module"),
        ("os:system", "package os has no builders of models, and no strategies"),
    ],
)
def test_what_is_no_strategy_is_refused(named: str, said: str) -> None:
    config = run(named)
    with pytest.raises(ModelError, match=said):
        Stage(config, 0)


def test_a_strategy_of_somebody_elses_needs_consent() -> None:
    config = run("own_strategies:Half")
    with pytest.raises(ModelError, match="asks for the strategy own_strategies:Half, which is"):
        check_consent(config, [], "the run")
    check_consent(config, ["own_strategies:Half"], "the run")
    with pytest.raises(ModelError, match="package os has no"):
        check_consent(run("os:system"), ["os:system"], "the run")


@pytest.mark.usefixtures("_own_module")
def test_what_is_no_strategy_is_found_before_the_run_begins() -> None:
    tokens, _ = data(0)
    with pytest.raises(ModelError, match="has no class 'NoStrategy'"):
        probe(run("own_strategies:NoStrategy"), tokens, tokens)
    assert probe(run("own_strategies:Half"), tokens, tokens) == []


# ---------------------------------------------------------------------- beside other parts


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_layout_of_a_state_is_known_without_its_values(kind: str) -> None:
    config = run(kind, dtype="bfloat16", **STRATEGIES[kind])
    stage = train(config, steps=3)[0]
    layout_from(config, 0).check(stage.state(), stage.digest(), "the state")


def test_one_process_does_not_repeat_a_run_that_averages() -> None:
    with pytest.raises(ModelError, match="replicas that differ, and one process has none"):
        train_reference(run("async"), 1)
