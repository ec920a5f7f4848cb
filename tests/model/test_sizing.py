"""What a stage will take in memory, against what stages take, and what cannot be had at all."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError, ModelError, UsageError
from swarmrt.ids import MicrobatchId
from swarmrt.kernels.codecs import Precision, wire_bytes
from swarmrt.model.averaged import Averaged
from swarmrt.model.decoupled import Decoupled
from swarmrt.model.generate import load_whole
from swarmrt.model.layout import layout_from
from swarmrt.model.muon import WORKING_MATRICES
from swarmrt.model.sizing import MOST_LANDINGS, MOST_SNAPSHOTS, Footprint, capacity, footprint
from swarmrt.model.stage import Stage
from swarmrt.runtime.computing import free_memory
from swarmrt.runtime.computing.free_memory import check_fits, describe, free_bytes, parse_size
from swarmrt.runtime.state.snapshot import snapshot_bytes
from swarmrt.scheduler.following import MOST_STEPS, Store
from swarmrt.scheduler.peer.updating.cutting import MAX_PART_BYTES, most_early
from tests.processes import ROOT

OWN = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy

def each(logits, targets):
    return cross_entropy(logits.mT, targets, reduction="none")
class Looking(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum().item() < 1e9 else x
def lazy(middle=nn.Linear):
    return [lambda: nn.Embedding(256, 64), lambda: nn.Sequential(nn.Linear(64, 64), nn.Tanh()),
            lambda: middle(64, 64), lambda: nn.Linear(64, 256)], each
def eager():
    return [build() for build in lazy()[0]], each
def looking():
    return lazy(Looking)
"""


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sizes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_sizes", raising=False)


def run(cut: tuple[int, ...] = (4,), microbatches: int = 1, **sections: Any) -> RunConfig:
    shape = {"layers": 4, "width": 64, "heads": 4, "kv_heads": 2, "sequence": 64}
    sections["model"] = shape | sections.get("model", {})
    batch = {"microbatch": 4, "microbatches": microbatches}
    return parse_config({**sections, "stages": {"layers": cut}, "batch": batch}, "test")


def saved_bytes(config: RunConfig, stage_index: int) -> int:
    """What autograd saves in the forward of a stage on the CPU, without its parameters."""
    stage = Stage(config, stage_index)
    tokens = torch.zeros(config.batch.microbatch, config.model.sequence, dtype=torch.int64)
    activations = torch.zeros(*tokens.shape, config.model.width, dtype=stage.dtype)
    inputs = tokens if stage.is_first else activations
    own = {tensor.untyped_storage().data_ptr() for tensor in stage.live_state().values()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forwarded = stage.forward(MicrobatchId(0, 0), inputs, tokens)
    assert forwarded.graph is not None
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"model": {"dropout": 0.1}},
    "float64": {"model": {"dtype": "float64"}},
    "bfloat16": {"model": {"dtype": "bfloat16"}},
    "own": {"model": {"kind": "own_sizes:lazy"}},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("stage", [0, 1])
def test_activations_are_what_autograd_saves(kind: dict[str, Any], stage: int) -> None:
    config = run((1, 3), **kind)
    told = footprint(config, stage).activations_bytes
    assert told == pytest.approx(saved_bytes(config, stage), rel=0.15)


SYNCED_DILOCO = {"strategy": "diloco", "sync_steps": 1, "precision": "model"}
STATES: tuple[dict[str, Any], ...] = (
    {},
    {"optimizer": {"staleness": 1}},
    {"optimizer": {"kind": "sgd"}},
    {"optimizer": {"kind": "muon"}},
    {"averaging": {"strategy": "async", "precision": "model"}},
    {"averaging": SYNCED_DILOCO},
    {"averaging": SYNCED_DILOCO, "optimizer": {"kind": "muon"}},
    {
        "averaging": {"strategy": "demo", "precision": "model"},
        "optimizer": {"kind": "sgd", "clip_norm": 0},
    },
)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", STATES, ids=str)
def test_state_is_what_a_stage_keeps(dtype: str, kind: dict[str, Any]) -> None:
    config = run(model={"dtype": dtype}, **kind)
    stage = Stage(config, 0)
    buffers = {tensor.untyped_storage().data_ptr(): tensor for tensor in _buffers(stage)}
    kept = sum(tensor.untyped_storage().nbytes() for tensor in buffers.values())
    told = footprint(config, 0)
    reduced = stage.gradients().nbytes  # arrives with each update
    assert told.parameters == stage.num_parameters
    largest = 64 * 192 if config.optimizer.kind == "muon" else 0
    working = WORKING_MATRICES * largest * stage.gradients().itemsize
    assert told.state_bytes == pytest.approx(kept + reduced + working, rel=0.001)


def _buffers(stage: Stage) -> list[torch.Tensor]:
    weights = stage._weights
    steps = range(weights.version, weights.version + 2)
    tensors = [*stage.live_state().values(), weights.newest.flat.values]
    tensors += [row.values for row in weights.updated.rows.values()]
    tensors += map(weights.gradients, steps)
    for layers in weights.all_layers():
        tensors += layers.tensors().values()
        tensors += [p.grad for p in layers.trainable().values() if p.grad is not None]
    if isinstance(weights, Decoupled):
        tensors += [weights._momentum, weights._next]
    if isinstance(weights, Averaged):
        weights.version = 1  # past the steps that all share
        weights.contribute(1)
        tensors += [weights.contribution(1), weights._ahead]
    return tensors


def test_more_microbatches_are_under_way_before_later_stages() -> None:
    config = run((1, 1, 1, 1), microbatches=8)
    one = run((1, 1, 1, 1), microbatches=1)
    first, alone = (footprint(c, 1).activations_bytes for c in (config, one))
    assert first == 3 * alone


def test_recomputing_keeps_inputs() -> None:
    keeping, again = (footprint(run((1,) * 4, 8, model={"recompute": r}), 0) for r in (False, True))
    assert again.activations_bytes < keeping.activations_bytes / 2


def test_frames_that_are_retained_count_up_to_their_bound() -> None:
    config = run((2, 2), microbatches=8)
    assert footprint(config, 0).frames_bytes == 8 * 4 * 64 * 64 * 4
    bounded = run((2, 2), microbatches=8, links={"retain_bytes": 1000})
    assert footprint(bounded, 0).frames_bytes == 1000


@pytest.mark.parametrize("applied_by", ["all", "owners"])
@pytest.mark.parametrize("precision", ["model", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", [{}, {"staleness": 1}, {"kind": "muon"}], ids=str)
def test_what_a_newcomer_loads_and_keeps_counts_as_it_travels(
    dtype: str, precision: Precision, applied_by: str, optimizer: dict[str, Any]
) -> None:
    how: dict[str, Any] = {"precision": {"gradients": precision}}
    optimizer = {"applied_by": applied_by, **optimizer}
    config = run(model={"dtype": dtype}, optimizer=optimizer, **how)
    stage = Stage(config, 0)
    gradients = stage.gradients()
    store = Store(
        wire_bytes(precision, len(gradients), gradients.itemsize),
        stage.state_rows * gradients.nbytes,
    )
    loads_bytes = sum(tensor.nbytes for tensor in stage.state().values())
    kept_bytes = footprint(config, 0).joining_bytes - MOST_LANDINGS * loads_bytes
    bound_bytes = store.bound_bytes(by_owners=applied_by == "owners")
    assert kept_bytes == pytest.approx(bound_bytes, rel=0.01)
    floats_bytes = (MOST_STEPS + 1) * gradients.nbytes
    assert precision == "model" or applied_by == "owners" or kept_bytes < 0.51 * floats_bytes


@pytest.mark.parametrize("width", [64, 512])
def test_snapshots_for_others_and_parts_that_come_early_count(width: int) -> None:
    config = run(model={"width": width, "vocab": 1 << 16})
    stage, told = Stage(config, 0), footprint(config, 0)
    assert told.joining_bytes > 0.99 * MOST_SNAPSHOTS * snapshot_bytes(0, 0, stage.state())
    number, gradient_bytes = most_early(stage.gradients().nbytes), stage.gradients().nbytes
    assert told.early_bytes == number * min(MAX_PART_BYTES, stage.state_rows * gradient_bytes)
    assert told.early_bytes < max(4 * gradient_bytes, 512 << 20)
    assert told.host_bytes == told.joining_bytes + told.early_bytes


def test_layers_that_a_builder_makes_at_once_count_for_every_stage() -> None:
    eager, lazy = (run((2, 2), model={"kind": f"own_sizes:{b}"}) for b in ("eager", "lazy"))
    whole = sum(tensor.nbytes for tensor in Stage(lazy, 0).named_parameters_state().values())
    whole += sum(tensor.nbytes for tensor in Stage(lazy, 1).named_parameters_state().values())
    assert footprint(eager, 0).whole_model_bytes == whole
    assert footprint(lazy, 0).whole_model_bytes == 0


def test_code_that_looks_at_values_is_sized_without_activations() -> None:
    told = footprint(run(model={"kind": "own_sizes:looking"}), 0)
    assert told.parameters > 0 and told.activations_bytes == 0
    Stage(run(model={"kind": "own_sizes:looking"}), 0)


KEEPS = """
import functools, torch
from torch import nn
scale, seen = torch.linspace(1, 2, 8), {}
@functools.cache
def places(length): return torch.arange(length)[:, None] / 8
class Keeps(nn.Linear):
    def __init__(self):
        super().__init__(8, 8)
        self.places = places(4)
    def forward(self, x):
        if "mask" not in seen: seen["mask"] = torch.ones(4, 1)
        return super().forward(x * scale * self.places * seen["mask"])
def build(): return [nn.Embedding(256, 8), Keeps(), Keeps()], lambda output, targets: output.sum()
"""


def test_code_that_keeps_tensors_beside_its_layers_has_their_values_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of the module, one that is cached, and one that the first forward makes."""
    folder = tmp_path / "own_kept"
    folder.mkdir()
    (folder / "model.py").write_text(KEEPS)
    monkeypatch.syspath_prepend(tmp_path)
    config = run((1, 2), model={"kind": "own_kept.model:build", "sequence": 4})
    assert footprint(config, 1).activations_bytes > 0
    for when in ("at first", "once its module is imported"):
        assert layout_from(config, 1).tensors["model.layers.1.weight"].is_meta, when
        stage = Stage(config, 1)
        layer = stage._weights.newest.layers
        output = layer(torch.ones(1, 4, 8), MicrobatchId(0, 0))
        assert output.isfinite().all() and not output.is_meta, when
        module = importlib.import_module("own_kept.model")
        assert vars(sys.modules["own_kept"])["model"] is module is sys.modules["own_kept.model"]
        assert not module.scale.is_meta and not module.places(4).is_meta


def test_telling_takes_no_memory_and_no_compiler() -> None:
    """In a process of its own: a stage of 10^14 bytes, in a few megabytes."""
    script = """
import sys
from swarmrt.config_toml import parse_config
from swarmrt.model.sizing import footprint
from swarmrt.runtime.process.vitals import resident_bytes
shape = {"layers": 64, "width": 1 << 18, "heads": 64, "kv_heads": 64, "vocab": 1 << 22}
batch = {"microbatch": 1}
config = parse_config({"model": shape, "batch": batch, "stages": {"layers": [32, 32]}}, "test")
before = resident_bytes()
assert footprint(config, 0).state_bytes > 10**14
assert before is None or resident_bytes() - before < 20e6, resident_bytes() - before
assert "sympy" not in sys.modules and "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_weights_that_do_not_fit_their_configuration_are_refused_before_it_is_built() -> None:
    tensors = {name: torch.zeros(1) for name in Stage(run(), 0).named_parameters_state()}
    wide = run(model={"width": 1 << 17, "vocab": 1 << 22})  # a terabyte of embeddings and more
    with pytest.raises(CheckpointError, match="of another model: embed.weight does not fit"):
        load_whole(wide, tensors)


# ---------------------------------------------------------------------- what there is


SIZES = {
    "8GB": 8e9,
    "500MB": 5e8,
    "1.5GiB": 1.5 * 2**30,
    "12 gb": 12e9,
    "100": 100,
    "none": math.inf,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes_are_read(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 XB", "-3GB", "0", "0GB", "1e9", "8GBB", "٣GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write a size like 8GB"):
        parse_size(text)


def needs(size: int) -> Footprint:
    return Footprint(1000, size // 2, size // 4, 0, size // 8, size // 16, size // 16)


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    check_fits(needs(10**9), "cpu", 10**9, stage=1)
    with pytest.raises(ModelError, match=r"stage 1 needs 2\.0 GB on cpu .* allows 1\.0 GB;"):
        check_fits(needs(2 * 10**9), "cpu", 10**9, stage=1)
    free = free_bytes("cpu")
    assert free is not None
    check_fits(needs(free // 2), "cpu", None, stage=1)
    with pytest.raises(ModelError, match="80% of what is free is"):
        check_fits(needs(free), "cpu", None, stage=1)


def test_a_container_has_what_its_group_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest bound of all groups around it counts, and the cache of files is free."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for folder, limit, current in ((inner, "max", 700), (inner.parent, "1000", 800)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text("anon 300\ninactive_file 150\n")
    monkeypatch.setattr(free_memory, "CGROUPS", tmp_path)
    assert free_memory.free_of_groups("0::/outer/inner\n") == [350]
    assert free_memory.free_of_groups("0::/elsewhere\n") == []
    assert free_memory.free_of_groups("1:memory:/outer\n") == []


def test_sizes_are_described() -> None:
    said = [describe(size) for size in (1.5e12, 8e9, 5e8, 1000)]
    assert said == ["1.5 TB", "8.0 GB", "500.0 MB", "1 KB"]


def test_capacity_is_what_fits_beside_what_is_needed() -> None:
    config = run((1,) * 4, 8)
    told = footprint(config, 1)
    assert told.under_way == 3 and told.activations_bytes == 3 * told.kept_bytes
    for left, holds in ((0.0, 3), (1.0, 4), (2.9, 5), (4.9, 7), (8.0, 0)):
        assert capacity(config, told, left * told.kept_bytes) == holds
    assert check_fits(told, "cpu", 10**9, stage=1) == 10**9 - told.device_bytes - told.host_bytes
