"""Weights outside of the swarm: files, Hugging Face, sampling."""

import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError, ModelError, UsageError
from swarmrt.ids import MicrobatchId
from swarmrt.model.export import join_states, model_names, write_hf_llama, write_safetensors
from swarmrt.model.generate import choose_token, generate, load_whole
from swarmrt.model.stage import Stage
from tests.disks import full_after

ROOT = Path(__file__).parents[2]


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """It probes for a package called `kernels`, and must not find our folder of that name."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    monkeypatch.setattr(sys, "path", elsewhere)
    return pytest.importorskip("transformers")


def run(**model: Any) -> RunConfig:
    shape = {"layers": 3, "width": 48, "heads": 6, "kv_heads": 2, "sequence": 20, "vocab": 70}
    values = {"model": {**shape, **model}, "stages": {"layers": [1, 2]}}
    return parse_config(values, "test")


def weights(config: RunConfig) -> dict[str, Tensor]:
    return join_states([Stage(config, index).state() for index in range(config.num_stages)])


def test_stages_join_into_the_whole_model() -> None:
    config = run()
    assert list(weights(config)) == model_names(config)
    state = Stage(config, 0).state()
    with pytest.raises(CheckpointError, match=r"both hold embed\.weight"):
        join_states([state, state])


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_hugging_face_computes_the_same_logits(
    transformers: Any, tmp_path: Path, kv_heads: int
) -> None:
    config = run(kv_heads=kv_heads)
    tensors = {name: 5 * tensor for name, tensor in weights(config).items()}  # far from zero
    write_hf_llama(config, tensors, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 70, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load_whole(config, tensors)(tokens, MicrobatchId(0, 0, True))
        expected = theirs(tokens).logits
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_only_the_decoder_goes_to_hugging_face(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="built-in decoder only"):
        write_hf_llama(run(kind="mine:build"), {}, tmp_path)


def test_safetensors_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 2).T}
    write_safetensors(path, tensors)
    read = safetensors.torch.load_file(path)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    (plain := tmp_path / "plain").touch()
    assert path.stat().st_mode == plain.stat().st_mode, "others may read it as any file"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/model\.safetensors: cannot be written"):
        write_safetensors(tmp_path / "file" / "model.safetensors", {"a": torch.ones(1)})


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": torch.ones(1)})
    before = path.read_bytes()
    for name in ("model.safetensors", "other.safetensors"):
        with full_after(1000), pytest.raises(UsageError, match=rf"{name}: cannot be written: "):
            write_safetensors(tmp_path / name, {"a": torch.ones(1000)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_sampling_is_a_function_of_the_seed() -> None:
    config = run()
    tensors = weights(config)

    def sample(seed: int, temperature: float = 1.0) -> list[int]:
        return list(generate(config, tensors, [1, 2], 30, temperature, 0, seed))

    assert len(sample(0)) == 30 and max(sample(0)) < 70
    assert sample(0) == sample(0) != sample(1)
    assert sample(0, temperature=0) == sample(1, temperature=0)


def test_choosing_a_token() -> None:
    logits, draws = torch.tensor([0.0, 3.0, 2.9, -1.0]), torch.Generator().manual_seed(0)
    assert choose_token(logits, 0.0, 0, draws) == 1
    chosen = {choose_token(logits, 1.0, 2, draws) for _ in range(100)}
    assert chosen == {1, 2}


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(CheckpointError, match="of another model"):
        list(generate(run(), weights(run(width=24)), [1], 1, 0.0, 0, 0))
    more = weights(run()) | {"blocks.9.more": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"blocks\.9\.more does not fit"):
        load_whole(run(), more)
