"""Models from configurations: the decoder, users' builders, their draws and their mistakes."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.builders import call_builder, look_in
from swarmrt.model.draws import drawing, seed_for, seeded
from swarmrt.model.export import model_names
from swarmrt.model.probe import check_shared
from swarmrt.model.stage import Stage

BUILDERS = """
import torch, torch.nn.functional as F
from torch import nn

def scalar(logits, targets):
    return F.cross_entropy(logits.mT, targets)
def each(logits, targets):
    return F.cross_entropy(logits.mT, targets, reduction="none")

def modules(loss="each"):
    return [nn.Embedding(256, 8), nn.Linear(8, 8), nn.Linear(8, 256)], globals()[loss]
def lazy():
    return [lambda: nn.Embedding(256, 8), lambda: nn.Linear(8, 8), lambda: nn.Linear(8, 256)], each
def frozen():
    layers, loss = modules()
    layers[1].requires_grad_(False)
    return layers, loss
def tied():
    first, last = nn.Embedding(256, 8), nn.Linear(8, 256)
    last.weight = first.weight
    return [first, nn.Linear(8, 8), last], each
def batch_norm():
    return [nn.Embedding(256, 8), nn.BatchNorm1d(6), nn.Linear(8, 256)], each
def tuples():
    return [nn.Embedding(256, 8), nn.GRU(8, 8), nn.Linear(8, 256)], each
def bare():
    return [nn.Embedding(256, 8), nn.ReLU(), nn.Linear(8, 256)], each
def crashes(): raise RuntimeError("out of luck")
def layer_crashes(): return [lambda: nn.Linear(-1, 3), lambda: 3], each
def no_layer(): return [lambda: 3], each
def no_pair(): return [nn.Linear(3, 3)]
def no_list(): return nn.Linear(3, 3), each
def empty(): return [], each
def numbers(): return [1, 2], each
def no_loss(): return [nn.Linear(3, 3)], None
def loss_of_int(): return [nn.Embedding(256, 8)], lambda out, targets: 3
constant = 3
from functools import partial
from collections import namedtuple as elsewhere
bound = partial(modules)
alias = modules
class Class: pass
"""


@pytest.fixture(autouse=True)
def _builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_builders.py").write_text(BUILDERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_builders", raising=False)


def own(builder: str, cut: tuple[int, ...] = (3,), **options: Any) -> RunConfig:
    model = {"kind": f"own_builders:{builder}", "sequence": 6, "options": options}
    return parse_config({"model": model, "stages": {"layers": list(cut)}}, "test")


def decoder(cut: tuple[int, ...] = (3,), **model: Any) -> RunConfig:
    shape = {"layers": 3, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 6}
    values = {"model": {**shape, **model}, "stages": {"layers": list(cut)}}
    return parse_config(values, "test")


def names(config: RunConfig) -> list[str]:
    stages = [Stage(config, index) for index in range(config.num_stages)]
    return [name for stage in stages for name in stage.named_parameters_state()]


def test_names_do_not_depend_on_the_cut() -> None:
    assert names(decoder((3,))) == names(decoder((1, 2))) == model_names(decoder())
    assert {"embed.weight", "norm.weight", "head.weight"} < set(names(decoder()))
    assert "blocks.2.attention.query.weight" in names(decoder((1, 1, 1)))
    assert names(own("lazy")) == names(own("lazy", (2, 1))) == model_names(own("lazy"))
    assert names(own("lazy"))[-1] == "layers.2.bias"


@pytest.mark.parametrize("config", [decoder, lambda cut: own("lazy", cut)], ids=["decoder", "lazy"])
def test_first_weights_do_not_depend_on_the_cut(config: Any) -> None:
    whole = Stage(config((3,)), 0).named_parameters_state()
    for index in range(3):
        for name, tensor in Stage(config((1, 1, 1)), index).named_parameters_state().items():
            assert torch.equal(tensor, whole[name]), name


def test_modules_built_at_once_are_equal_everywhere() -> None:
    torch.manual_seed(1)
    first = Stage(own("modules", (1, 2)), 1)
    torch.manual_seed(2)
    assert Stage(own("modules", (1, 2)), 1).digest() == first.digest()


def test_a_scalar_loss_is_a_mean() -> None:
    tokens = torch.arange(12).view(2, 6)
    each, scalar = (
        Stage(own("modules", loss=loss), 0).forward(MicrobatchId(0, 0), tokens, tokens)
        for loss in ("each", "scalar")
    )
    assert scalar.loss_sum == pytest.approx(each.loss_sum)
    assert scalar.tokens == each.tokens == 12


def test_a_peer_builds_only_its_own_layers() -> None:
    model = build_layers(decoder())
    assert len(Slice(model, 1, 2).tensors()) == 9


def test_draws_depend_on_layer_and_microbatch_only() -> None:
    def draw(layer: int, microbatch: MicrobatchId, before: int = 0) -> list[float]:
        with drawing(7, microbatch) as at_layer:
            torch.rand(before)
            at_layer(layer)
            return torch.rand(3).tolist()

    here = draw(2, MicrobatchId(1, 1))
    assert draw(2, MicrobatchId(1, 1), before=5) == here
    others = [draw(1, MicrobatchId(1, 1)), draw(2, MicrobatchId(1, 0)), draw(2, MicrobatchId(0, 1))]
    assert all(other != here for other in others)


def test_masks_do_not_depend_on_the_cut() -> None:
    tokens = torch.arange(12).view(2, 6)
    microbatch = MicrobatchId(3, 1)
    whole = Stage(decoder(dropout=0.5), 0).forward(microbatch, tokens, tokens).loss_sum
    first, second = (Stage(decoder((1, 2), dropout=0.5), i) for i in (0, 1))
    middle = first.forward(microbatch, tokens, None).output
    assert middle is not None
    assert second.forward(microbatch, middle, tokens).loss_sum == whole


def test_seeds_are_the_same_in_every_process() -> None:
    assert seed_for(0, "init", 1) == 4561719668316506756
    assert seed_for(1, 23) != seed_for(12, 3) and seed_for(1) != seed_for("1")
    assert all(0 <= seed_for(i) < 2**63 for i in range(100))


def test_seeding_leaves_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(5):
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no_such_package.there:build", "cannot import no_such_package.there"),
        ("own_builders:missing", "has no function 'missing'"),
        ("own_builders:constant", "has no function 'constant'"),
        ("own_builders:elsewhere", "not a function that own_builders defines"),
        ("own_builders:bound", "not a function that own_builders defines"),
        ("own_builders:alias", "not a function that own_builders defines"),
        ("own_builders:Class", "not a function that own_builders defines"),
        ("own_builders:torch", "has no function 'torch'"),
        ("torch.hub:load", "the package torch has no builders"),
        ("runpy:run_path", "the package runpy has no builders"),
        ("own_builders:crashes", "RuntimeError: out of luck"),
        ("own_builders:layer_crashes", "layer 0 cannot be built"),
        ("own_builders:no_layer", "layer 0 must be an nn.Module, not int"),
        ("own_builders:no_pair", r"must return \(layers, loss\)"),
        ("own_builders:no_list", "layers must be a list"),
        ("own_builders:empty", "layers must be a list with at least one"),
        ("own_builders:numbers", "layer 0 is int"),
        ("own_builders:no_loss", "loss must be callable, not NoneType"),
    ],
)
def test_a_wrong_builder_is_explained(kind: str, message: str) -> None:
    config = parse_config({"model": {"kind": kind}, "stages": {"layers": [1]}}, "test")
    with pytest.raises(ModelError, match=message) as caught:
        Stage(config, 0)
    assert kind in str(caught.value) and "\n" not in str(caught.value)


def test_tied_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="layers 0 and 2 share a parameter"):
        check_shared(own("tied"))


def test_wrong_options_are_explained() -> None:
    with pytest.raises(ModelError, match="unexpected keyword argument 'depth'"):
        build_layers(own("lazy", depth=3))


@pytest.mark.parametrize(
    ("builder", "layers", "message"),
    [
        ("batch_norm", 3, r"changes the buffer layers\.1\."),
        ("tuples", 3, "layer 1 must return one floating tensor, not tuple"),
        ("loss_of_int", 1, "loss must return a floating tensor"),
    ],
)
def test_what_cannot_be_trained_is_refused(builder: str, layers: int, message: str) -> None:
    stage = Stage(own(builder, (layers,)), 0)
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    with pytest.raises(ModelError, match=message):
        stage.forward(MicrobatchId(0, 0), tokens, tokens)


def test_a_stage_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ModelError, match="stage 1 has nothing to train"):
        Stage(own("bare", (1, 1, 1)), 1)


def test_frozen_parameters_stay_and_travel() -> None:
    stage = Stage(own("frozen"), 0)
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    stage.backward(stage.forward(MicrobatchId(0, 0), tokens, tokens), None)
    before = stage.named_parameters_state()
    stage.step(stage.gradients().clone(), 1.0)
    after = stage.named_parameters_state()
    assert torch.equal(before["layers.1.weight"], after["layers.1.weight"])
    assert not torch.equal(before["layers.2.weight"], after["layers.2.weight"])
    assert stage.num_parameters == 256 * 8 + 256 * 8 + 256


BUILDER = """
from torch import nn
import tokenize_text
def build():
    return [nn.Linear(tokenize_text.WIDTH, 2)], nn.MSELoss(reduction="none")
"""


def test_no_file_beside_a_builder_passes_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("this", "networkx", "tokenize_text", "builder_of_mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (folder / f"{name}.py").write_text("WIDTH = 3\n")
    (folder / "builder_of_mine.py").write_text(BUILDER)
    look_in([folder])
    found = [importlib.util.find_spec(name) for name in ("this", "networkx")]
    assert not [spec for spec in found if spec is None or str(folder) in str(spec.origin)]
    layers, _ = call_builder(parse_config({"model": {"kind": "builder_of_mine:build"}}, "test"))
    assert isinstance(layers[0], torch.nn.Linear) and layers[0].in_features == 3


def test_a_builder_that_has_the_name_of_a_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "networkx.py").write_text("def build():\n    return [], None\n")
    look_in([folder])
    with pytest.raises(ModelError, match=r"networkx\.py is meant, but networkx is also the name"):
        call_builder(parse_config({"model": {"kind": "networkx:build"}}, "test"))
