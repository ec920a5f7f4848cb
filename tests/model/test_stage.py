"""Stages chained by hand against the reference, and what a stage promises to its replicas."""

import importlib
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import Data, open_data
from swarmrt.errors import CheckpointError
from swarmrt.ids import MicrobatchId
from swarmrt.model.optimizer import clip_scale
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Stage
from swarmrt.model.updating import LastMade

ROOT = Path(__file__).parents[2]
OWN: dict[str, Any] = {"kind": "examples.custom_model:build", "options": {"width": 16, "depth": 2}}
ADAMW = {"lr": 0.01, "warmup_steps": 2, "clip_norm": 0.5}
STALE = {"staleness": 1, "fresh_steps": 0}
MUON = {"kind": "muon", **ADAMW}
SGD = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "clip_norm": 0.5, "warmup_steps": 0}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(Path(parse_config.__code__.co_filename).read_bytes())
    return path


def run(
    text: Path, cut: tuple[int, ...], optimizer: dict[str, Any] | None = None, **model: Any
) -> RunConfig:
    shape = {"layers": 4, "width": 24, "heads": 2, "kv_heads": 1, "sequence": 12}
    return parse_config(
        {
            "run": {"steps": 20},
            "model": {**shape, "dtype": "float64", "dropout": 0.2, **model},
            "stages": {"layers": list(cut)},
            "batch": {"microbatch": 2, "microbatches": 3},
            "optimizer": ADAMW if optimizer is None else optimizer,
            "data": {"source": str(text)},
        },
        "test",
    )


def train_step(stages: list[Stage], data: Data, config: RunConfig) -> list[str]:
    """One step through all stages."""
    return update(stages, config, compute(stages, data, config, stages[0].version))


def compute(stages: list[Stage], data: Data, config: RunConfig, step: int) -> int:
    """Last microbatch first, since the order must not matter; the step's tokens."""
    tokens = 0
    for index in reversed(range(config.batch.microbatches)):
        microbatch = MicrobatchId(step, index)
        value, targets = map(torch.from_numpy, data.microbatch(microbatch))
        forwarded = []
        for stage in stages:
            forwarded.append(stage.forward(microbatch, value, targets if stage.is_last else None))
            if (output := forwarded[-1].output) is not None:
                value = output
        tokens += forwarded[-1].tokens
        grad: Tensor | None = None
        for stage, left in zip(reversed(stages), reversed(forwarded), strict=True):
            grad = stage.backward(left, grad)
        assert grad is None
    return tokens


def update(stages: list[Stage], config: RunConfig, tokens: int) -> list[str]:
    means = [stage.gradients() / tokens for stage in stages]
    squares = [float(torch.linalg.vector_norm(m, dtype=torch.float64)) ** 2 for m in means]
    scale = clip_scale(sum(squares) ** 0.5, config.optimizer.clip_norm)
    return [stage.step(mean, scale) for stage, mean in zip(stages, means, strict=True)]


def build(config: RunConfig) -> list[Stage]:
    return [Stage(config, index) for index in range(config.num_stages)]


def trained(config: RunConfig, steps: int) -> dict[str, Tensor]:
    stages, data = build(config), open_data(config)
    for _ in range(steps):
        train_step(stages, data, config)
    return {name: t for stage in stages for name, t in stage.named_parameters_state().items()}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest, relative to each tensor's own largest value."""
    assert list(one) == list(other)
    return max(
        float((one[name] - other[name]).abs().max() / other[name].abs().max()) for name in one
    )


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("cut", [(4,), (1, 3), (2, 1, 1)])
def test_stages_equal_the_reference(
    text: Path, cut: tuple[int, ...], optimizer: dict[str, Any]
) -> None:
    """With dropout and clipping: promise P1's arithmetic."""
    config = run(text, cut, optimizer)
    assert difference(trained(config, 4), train_reference(config, 4)) < 1e-12


def test_stale_steps_overlap_and_equal_the_reference(text: Path) -> None:
    """With a staleness of 1 a step is computed before the one before it is applied."""
    config = run(text, (2, 2), {**ADAMW, **STALE})
    stages, data = build(config), open_data(config)
    tokens = compute(stages, data, config, 0)
    for step in range(1, 5):
        newer = compute(stages, data, config, step)
        update(stages, config, tokens)
        tokens = newer
    weights = {name: t for stage in stages for name, t in stage.named_parameters_state().items()}
    assert difference(weights, train_reference(config, 4)) < 1e-12
    fresh = run(text, (2, 2))
    assert difference(train_reference(fresh, 4), train_reference(config, 4)) > 1e-4


def test_overlapping_steps_of_ready_made_modules_have_gradients_of_their_own(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder may return modules instead of functions that make them."""
    source = """
        from torch import nn
        import torch.nn.functional as F

        def build():
            layers = [nn.Embedding(256, 8).double(), nn.Linear(8, 256).double()]
            return layers, lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten())
    """
    (tmp_path / "ready_made.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    own = {"kind": "ready_made:build", "layers": 2}
    config = run(text, (2,), {**ADAMW, **STALE}, **own)
    stages, data = build(config), open_data(config)
    for step in (0, 1):
        compute(stages, data, config, step)
        assert stages[0].gradients(step).norm() > 0


@pytest.mark.parametrize("kind", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("staleness", [0, 1])
def test_skipped_step_leaves_the_weights_and_the_reference_skips_it_too(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    staleness: int,
    kind: dict[str, Any],
) -> None:
    source = """
        from torch import nn
        import torch.nn.functional as F

        BAD = []

        def loss(x, y):
            spoiled = any(bool((y == bad).all()) for bad in BAD)
            return F.cross_entropy(x.mT, y, reduction="none") * (float("nan") if spoiled else 1.0)

        def build():
            inner = lambda: nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 8)).double()
            return [inner, lambda: nn.Linear(8, 256).double()], loss
    """
    (tmp_path / "spoiled_data.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    own = {"kind": "spoiled_data:build", "layers": 2}
    optimizer = {**kind, "staleness": staleness, "fresh_steps": 0, "not_finite": "skip"}
    config = run(text, (1, 1), optimizer, **own)
    stages, data = build(config), open_data(config)
    bad = data.microbatch(MicrobatchId(1, 0))[1]
    importlib.import_module("spoiled_data").BAD.append(torch.from_numpy(bad))
    for step in range(4):
        tokens = compute(stages, data, config, step)
        if step != 1:
            update(stages, config, tokens)
            continue
        digests = [stage.digest() for stage in stages]
        assert [stage.skip() for stage in stages] == digests
    weights = {name: t for stage in stages for name, t in stage.named_parameters_state().items()}
    assert difference(weights, train_reference(config, 4)) < 1e-12
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_stages_equal_the_reference_with_sgd_in_float32(text: Path) -> None:
    config = run(text, (1, 2, 1), SGD, dtype="float32")
    assert difference(trained(config, 4), train_reference(config, 4)) < 1e-5


def test_own_model_equals_the_reference(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = run(text, (2, 1, 1), **OWN)
    assert difference(trained(config, 4), train_reference(config, 4)) < 1e-12


def test_one_lost_microbatch_would_be_seen(text: Path) -> None:
    """The comparison above has teeth."""
    config = run(text, (2, 2))
    fewer = config.model_copy(update={"batch": config.batch.model_copy(update={"microbatches": 2})})
    stages, data = build(fewer), open_data(config)
    train_step(stages, data, fewer)
    lost = {n: t for stage in stages for n, t in stage.named_parameters_state().items()}
    assert difference(lost, train_reference(config, 1)) > 1e-4


def test_bfloat16_follows_the_reference(text: Path) -> None:
    config = run(text, (2, 2), dtype="bfloat16", dropout=0.0)
    assert difference(trained(config, 3), train_reference(config, 3)) < 0.05


def with_compute(config: RunConfig) -> RunConfig:
    precision = config.precision.model_copy(update={"compute": "bfloat16"})
    return config.model_copy(update={"precision": precision})


def test_mixed_precision_follows_the_reference_and_keeps_float32(text: Path) -> None:
    exact = run(text, (2, 2), SGD, dtype="float32")
    mixed = with_compute(exact)
    ours = trained(mixed, 3)
    assert all(tensor.dtype == torch.float32 for tensor in ours.values())
    assert difference(ours, train_reference(mixed, 3)) < 1e-3
    assert 1e-6 < difference(ours, trained(exact, 3)) < 0.05
    assert all(stage.gradients().dtype == torch.float32 for stage in build(mixed))


def test_replicas_of_mixed_precision_agree(text: Path) -> None:
    config = with_compute(run(text, (2, 2), dtype="float32"))
    data, digests = open_data(config), []
    for _ in range(2):
        digests.append(train_step(build(config), data, config))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("compute", ["model", "bfloat16"])
def test_recomputation_changes_no_bit_and_keeps_no_activations(text: Path, compute: str) -> None:
    """With dropout, whose draws are the microbatch's and the layer's."""
    kept = run(text, (2, 2), dtype="float32")
    again = run(text, (2, 2), dtype="float32", recompute=True)
    if compute == "bfloat16":
        kept, again = with_compute(kept), with_compute(again)
    data, digests = open_data(kept), []
    for config in (kept, again):
        stages = build(config)
        digests.append([train_step(stages, data, config) for _ in range(3)])
    assert digests[0] == digests[1]
    tokens = torch.zeros(2, 12, dtype=torch.int64)
    forwarded = Stage(again, 0).forward(MicrobatchId(0, 0), tokens, None)
    assert forwarded.graph is not None and forwarded.graph.end is None
    assert forwarded.output is not None and not forwarded.output.requires_grad


def test_recomputation_without_accumulating_gives_the_same_input_gradient(text: Path) -> None:
    inputs, grad = torch.randn(2, 12, 24), torch.randn(2, 12, 24)
    grads = []
    for recompute in (False, True):
        stage = Stage(run(text, (1, 2, 1), dtype="float32", recompute=recompute), 1)
        forwarded = stage.forward(MicrobatchId(0, 0), inputs, None)
        grads.append(stage.backward(forwarded, grad, accumulate=False))
        assert not stage.gradients().any()
    kept, again = grads
    assert kept is not None and again is not None and torch.equal(kept, again)


def test_the_loss_goes_down(text: Path) -> None:
    config = run(text, (4,), dtype="float32", dropout=0.0)
    losses: list[float] = []
    train_reference(config, 20, lambda step, loss, lr: losses.append(loss))
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "optimizer",
    [ADAMW, SGD, MUON, {**ADAMW, **STALE}, {**MUON, **STALE}],
    ids=["adamw", "sgd", "muon", "stale adamw", "stale muon"],
)
def test_loaded_state_continues_to_the_bit(
    text: Path, optimizer: dict[str, Any], dtype: str
) -> None:
    config = run(text, (2, 2), optimizer, dtype=dtype)
    stages, newcomers, data = build(config), build(config), open_data(config)
    for _ in range(2):
        train_step(stages, data, config)
    states = [stage.state() for stage in stages]
    for newcomer, state in zip(newcomers, states, strict=True):
        newcomer.gradients().fill_(1.0)
        newcomer.load_state(state, 2)
        assert newcomer.version == 2 and not newcomer.gradients().any()
    for _ in range(2):
        assert train_step(stages, data, config) == train_step(newcomers, data, config)
    for stage, newcomer in zip(stages, newcomers, strict=True):
        ours, theirs = stage.state(), newcomer.state()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_is_a_copy_and_a_fresh_stage_has_the_same_names(text: Path) -> None:
    config = run(text, (2, 2))
    stages, data = build(config), open_data(config)
    fresh = stages[1].state()
    kept = {name: tensor.clone() for name, tensor in fresh.items()}
    train_step(stages, data, config)
    assert all(torch.equal(fresh[name], kept[name]) for name in fresh)
    assert list(stages[1].state()) == list(fresh)
    assert all(t.is_contiguous() and t.device.type == "cpu" for t in fresh.values())


def test_gradients_are_a_live_view_until_cleared(text: Path) -> None:
    stage = Stage(run(text, (4,)), 0)
    tokens = torch.zeros(2, 12, dtype=torch.int64)
    gradients = stage.gradients()
    assert gradients.shape == (stage.num_parameters,)
    for _ in range(2):
        stage.backward(stage.forward(MicrobatchId(0, 0), tokens, tokens), None)
    twice = gradients.clone()
    stage.clear_gradients()
    assert not gradients.any()
    stage.backward(stage.forward(MicrobatchId(0, 0), tokens, tokens), None)
    assert torch.allclose(2 * gradients, twice, rtol=1e-12)


def test_forward_has_no_side_effects(text: Path) -> None:
    stage = Stage(run(text, (4,)), 0)
    tokens = torch.zeros(2, 12, dtype=torch.int64)
    digest, generator = stage.digest(), torch.random.get_rng_state()
    losses = [stage.forward(MicrobatchId(0, 0), tokens, tokens).loss_sum for _ in range(2)]
    assert losses[0] == losses[1]
    assert stage.digest() == digest and not stage.gradients().any()
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_held_out_microbatches_leave_no_graph_and_drop_nothing(text: Path) -> None:
    stage = Stage(run(text, (4,)), 0)
    tokens = torch.arange(24).view(2, 12)
    evaluated = [stage.forward(MicrobatchId(0, i, held_out=True), tokens, tokens) for i in (0, 1)]
    assert evaluated[0].graph is None and evaluated[0].loss_sum == evaluated[1].loss_sum
    assert evaluated[0].tokens == 24
    assert stage.forward(MicrobatchId(0, 0), tokens, tokens).loss_sum != evaluated[0].loss_sum


def test_backward_happens_once_and_at_its_own_version(text: Path) -> None:
    stage = Stage(run(text, (4,)), 0)
    tokens = torch.zeros(2, 12, dtype=torch.int64)
    done, late = (stage.forward(MicrobatchId(0, i), tokens, tokens) for i in (0, 1))
    stage.backward(done, None)
    with pytest.raises(ValueError, match="no graph"):
        stage.backward(done, None)
    stage.step(torch.zeros(stage.num_parameters, dtype=torch.float64), 1.0)
    with pytest.raises(ValueError, match="another version"):
        stage.backward(late, None)


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_replicas_agree_whatever_their_number_of_threads(
    text: Path, optimizer: dict[str, Any]
) -> None:
    """Promise P2: given the same reduced gradient, an update is the same to the bit."""
    config = run(text, (4,), optimizer, width=128, dtype="float32")
    digests = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            stage = Stage(config, 0)
            draws = torch.Generator().manual_seed(0)
            for _ in range(3):
                reduced = torch.randn(stage.num_parameters, generator=draws)
                digest = stage.step(reduced, 0.3)
            digests.append(digest)
    finally:
        torch.set_num_threads(before)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, dtype) for kind in (ADAMW, SGD, MUON) for dtype in ("float64", "float32", "bfloat16")],
)
def test_update_that_is_made_in_slices_is_that_of_a_step_and_whoever_adopts_it_is_equal(
    text: Path, kind: dict[str, Any], dtype: str, staleness: int
) -> None:
    """Parameters and moments. Torch rounds the ends of a slice differently, which is why all adopt
    the same bytes."""
    config = run(text, (4,), {**kind, "staleness": staleness, "fresh_steps": 0}, dtype=dtype)
    whole, owner, other = (Stage(config, 0) for _ in range(3))
    draws = torch.Generator().manual_seed(0)
    size = whole.num_parameters
    cuts = [0, 1, size // 3, size // 2 + 1, size]
    for _ in range(3):
        reduced = torch.randn(size, generator=draws).to(whole.gradients().dtype)
        slices = [slice(start, stop) for start, stop in pairwise(cuts)]
        version, before = owner.version, owner.digest()
        last = LastMade()
        made = [(where, owner.updated(version, where, reduced, 0.3, last)) for where in slices]
        again = [owner.updated(version, where, reduced, 0.3) for where in slices]
        assert all(torch.equal(one, other) for (_, one), other in zip(made, again, strict=True))
        assert owner.digest() == before, "nothing is changed yet"
        assert owner.adopt(made) == other.adopt(made)
        whole.step(reduced, 0.3)
    states = [stage.state() for stage in (owner, other, whole)]
    for adopted, others, stepped in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(adopted, others)
        torch.testing.assert_close(adopted, stepped)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("model.norm.weight"), "lacks tensor model.norm.weight"),
        (lambda s: s.pop("optimizer.step"), "lacks tensor optimizer.step"),
        (lambda s: s.update(odd=torch.ones(1)), "unknown tensor odd"),
        (lambda s: s.update({"model.norm.weight": torch.ones(3)}), "norm.weight is float32"),
    ],
)
def test_a_state_of_another_model_is_refused_whole(text: Path, spoil: Any, message: str) -> None:
    stage = Stage(run(text, (4,)), 0)
    state, digest = stage.state(), stage.digest()
    for tensor in state.values():
        tensor += 1
    spoil(state)
    with pytest.raises(CheckpointError, match=message):
        stage.load_state(state, 7)
    assert stage.digest() == digest and stage.version == 0


def test_a_stage_does_not_import_torchs_compiler(text: Path) -> None:
    """It costs a process seconds to start and 100 MB, and nothing here compiles. Nor does a
    backward import what autograd compares shapes with."""
    script = (
        "import sys, torch; from swarmrt.model.stage import Stage; from swarmrt.config import *;"
        "from swarmrt.ids import MicrobatchId;"
        "from swarmrt.model.partition import resolve; stage = Stage(resolve(RunConfig()), 0);"
        "forwarded = stage.forward(MicrobatchId(0, 0), torch.zeros(1, 8, dtype=torch.int64), None);"
        "stage.backward(forwarded, torch.ones_like(forwarded.output));"
        "stage.step(torch.zeros(stage.num_parameters), 1.0);"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_a_gradient_of_another_shape_is_refused(text: Path) -> None:
    config = run(text, (2, 2))
    stage = Stage(config, 0)
    inputs = torch.zeros(2, 12, dtype=torch.int64)
    forwarded = stage.forward(MicrobatchId(0, 0), inputs, None)
    assert forwarded.output is not None
    with pytest.raises(RuntimeError, match="invalid gradient"):
        stage.backward(forwarded, torch.ones_like(forwarded.output)[:, :-1])
    assert not stage.gradients().any()
