"""Tensors are exactly what their message says, or the message is dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import AccessError
from swarmrt.ids import MicrobatchId, Work
from swarmrt.messages import Backward, Finish, Forward, GetFrame, Message, Prepare, Recover
from swarmrt.model.frames import FrameShape, activations_into
from swarmrt.model.layout import layout_from, layout_of
from swarmrt.model.stage import Stage
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.trouble import is_own_trouble, said_by
from swarmrt.runtime.state.snapshot import read_snapshot, snapshot_bytes, write_snapshot
from swarmrt.trust.sealing import KEY_BYTES, seal

MB = MicrobatchId(0, 0)
B, T, C, V = 2, 8, 32, 64
SIZES: dict[str, object] = {
    "layers": 3,
    "width": C,
    "heads": 2,
    "kv_heads": 1,
    "sequence": T,
    "vocab": V,
}
FORWARD = Forward(Work(MB, 1), 1, ())
RECOVER = Recover(1, MB, (), ())
BACKWARD = Backward(1, MB, (), ())
IDS = torch.zeros(B, T, dtype=torch.int64)
KEY = bytes(KEY_BYTES)


def sealed(targets: torch.Tensor = IDS) -> torch.Tensor:
    return torch.frombuffer(bytearray(seal(KEY, MB, targets.numpy().tobytes())), dtype=torch.uint8)


KINDS: list[dict[str, dict[str, object]]] = [
    {},
    {"model": {"dtype": "bfloat16"}},
    {"model": {"dtype": "float64"}, "optimizer": {"staleness": 1}},
    {"precision": {"activations": "bfloat16"}},
    {"precision": {"compute": "bfloat16"}, "optimizer": {"kind": "sgd", "momentum": 0.9}},
]


def config_of(**sections: dict[str, object]) -> RunConfig:
    values: dict[str, dict[str, object]] = {
        "model": SIZES,
        "stages": {"layers": (1, 1, 1)},
        "batch": {"microbatch": B, "microbatches": 2},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    return parse_config(values, "it")


def sent(config: RunConfig, tensor: torch.Tensor) -> torch.Tensor:
    """As it leaves a peer."""
    is_half = config.precision.activations == "bfloat16"
    return tensor.to(torch.bfloat16) if is_half else tensor


@pytest.mark.parametrize("sections", KINDS, ids=str)
@pytest.mark.parametrize("learns", [False, True])
def test_what_stages_make_fits_the_next_one_and_nothing_else_does(
    sections: dict[str, dict[str, object]], learns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is known beforehand, and where it has to be learned from what was computed."""
    config = config_of(**sections)
    if learns:
        monkeypatch.setattr(
            "swarmrt.runtime.computing.fitting.activations_into", lambda *what: None
        )
    stages = [Stage(config, index) for index in range(3)]
    fittings = [Fitting(config, index) for index in range(3)]
    inputs = IDS
    for stage, fitting in zip(stages, fittings, strict=True):
        assert fitting.fits(FORWARD, (inputs, sealed()))
        came = inputs if stage.is_first else inputs.to(stage.dtype)
        forwarded = stage.forward(MB, came, IDS if stage.is_last else None)
        output = None if forwarded.output is None else sent(config, forwarded.output)
        fitting.learn(inputs, output)
        for wrong in others_than(inputs):
            assert not fitting.fits(FORWARD, (wrong, sealed())), (wrong.shape, wrong.dtype)
        if output is not None:
            gradient = sent(config, torch.zeros(output.shape, dtype=stage.dtype))
            assert fitting.fits(BACKWARD, (gradient,))
            assert not any(fitting.fits(BACKWARD, (wrong,)) for wrong in others_than(gradient))
            inputs = output


def others_than(tensor: torch.Tensor) -> list[torch.Tensor]:
    shape = tensor.shape
    dtypes = {torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.uint8}
    shapes = [(), (0,), shape[:-1], (*shape, 1), (shape[0] + 1, *shape[1:]), (*shape[:-1], 999)]
    return [
        *(tensor.to(dtype) for dtype in dtypes - {tensor.dtype}),
        *(torch.zeros(other, dtype=tensor.dtype) for other in shapes),
    ]


@pytest.mark.parametrize("value", [-1, V, 1 << 40, -(1 << 63)])
def test_ids_are_in_the_vocabulary(value: int) -> None:
    wrong = IDS.clone()
    wrong[1, 3] = value
    for index in range(3):
        fitting = Fitting(config_of(), index)
        inputs = IDS if index == 0 else torch.zeros(B, T, C)
        assert fitting.fits(FORWARD, (inputs, sealed()))
        with pytest.raises(AccessError, match="are no tokens"):
            fitting.open_targets(KEY, MB, sealed(wrong))
        assert torch.equal(fitting.open_targets(KEY, MB, sealed()), IDS)
    assert not Fitting(config_of(), 0).fits(FORWARD, (wrong, sealed()))


def test_targets_are_sealed_and_of_their_size() -> None:
    first, whole = Fitting(config_of(), 0), sealed()
    for wrong in (IDS, whole[:-1], whole.view(1, -1), whole.to(torch.int32)):
        assert not first.fits(FORWARD, (IDS, wrong))
    with pytest.raises(AccessError, match="cannot be opened"):
        first.open_targets(KEY, MB, whole ^ 1)
    with pytest.raises(AccessError, match="cannot be opened"):
        first.open_targets(KEY, MicrobatchId(0, 1), whole)


@pytest.mark.parametrize("tensors", [(), (IDS,), (IDS, IDS, IDS)])
def test_number_of_tensors_is_that_of_the_message(tensors: tuple[torch.Tensor, ...]) -> None:
    first, second = Fitting(config_of(), 0), Fitting(config_of(), 1)
    assert not first.fits(FORWARD, tensors) and not first.fits(RECOVER, tensors)
    assert first.fits(RECOVER, (IDS, sealed())) and second.fits(RECOVER, ())
    assert not second.fits(RECOVER, (IDS, sealed()))
    for message in (GetFrame(1, MB, "output"), Prepare(1, 0, 1, (), (), 1), Finish("it is over")):
        assert first.fits(message, tensors) == (tensors == ()), message


def test_a_last_stage_takes_no_gradient_that_it_could_not_have_made() -> None:
    message: Message = BACKWARD
    assert not Fitting(config_of(), 2).fits(message, (IDS,))


# ---------------------------------------------------------------------- the user's own layers


class LooksAtValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int(x.abs().sum() * 0) + B]


def own(looks: bool = False) -> tuple[list[Callable[[], nn.Module]], object]:
    layers: list[Callable[[], nn.Module]] = [
        lambda: nn.Sequential(nn.Embedding(V, C), nn.Flatten(1), nn.Linear(T * C, 5)),
        lambda: nn.Sequential(nn.Linear(5, 7), LooksAtValues() if looks else nn.Identity()),
        lambda: nn.Linear(7, V),
    ]
    return layers, lambda output, targets: output.sum()


def test_frames_of_own_layers_are_told_by_running_them_without_values() -> None:
    config = config_of(model={"kind": f"{__name__}:own"})
    assert activations_into(config, 1) == FrameShape(torch.Size([B, 5]), torch.float32)
    assert activations_into(config, 2) == FrameShape(torch.Size([B, 7]), torch.float32)
    looking = config_of(model={"kind": f"{__name__}:own", "options": {"looks": True}})
    assert activations_into(looking, 2) is None, "that is learned"


# ---------------------------------------------------------------------- state


@pytest.mark.parametrize("sections", KINDS, ids=str)
def test_a_stage_that_is_not_here_has_the_same_layout(
    sections: dict[str, dict[str, object]],
) -> None:
    config = config_of(**sections)
    for index in range(3):
        stage = Stage(config, index)
        here, elsewhere = layout_of(stage), layout_from(config, index)
        assert here.parameters == elsewhere.parameters
        data = write_snapshot(index, 12, stage.state())
        assert len(data) == snapshot_bytes(index, 12, elsewhere.tensors)
        tensors = read_snapshot(data, "it")
        assert elsewhere.digest(tensors) == stage.digest()
        elsewhere.check(tensors, stage.digest(), "it")


# ---------------------------------------------------------------------- errors


def test_running_out_of_memory_is_this_machines_own_trouble() -> None:
    cpu = torch.device("cpu")
    assert is_own_trouble(MemoryError(), cpu) and is_own_trouble(torch.OutOfMemoryError(), cpu)
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(1 << 52)
    assert is_own_trouble(too_much.value, cpu)
    assert not is_own_trouble(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), cpu)
    assert said_by(ValueError("first\nsecond")) == "ValueError: first"
    assert len(said_by(ValueError("x" * 9999))) == 200


def test_backward_that_fails_leaves_nothing_for_the_next_microbatch() -> None:
    config = config_of(model={"width": 512, "sequence": 64}, batch={"microbatch": 8})
    stage = Stage(config, 1)
    inputs, gradient = torch.randn(8, 64, 512), torch.randn(8, 64, 512)
    stage.backward(stage.forward(MB, inputs, None), gradient)
    expected = stage.gradients().clone()
    stage.clear_gradients()
    failing = stage.forward(MB, inputs, None)
    assert (
        failing.output is not None and failing.graph is not None and failing.graph.end is not None
    )

    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("it fails")

    failing.graph.inputs.register_hook(fail)  # type: ignore[no-untyped-call]  # when the weights of all layers have had their turn
    with pytest.raises(RuntimeError, match="it fails"):
        stage.backward(failing, gradient, later=True)
    stage.clear_gradients()
    again = stage.forward(MB, inputs, None)
    stage.backward(again, gradient, later=True)
    stage.add_weight_gradients(again)
    torch.testing.assert_close(stage.gradients(), expected)
