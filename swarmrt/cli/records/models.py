"""The commands `swarmrt reference`, `export` and `generate`: models without the runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.options.devices import DEVICE, check_device
from swarmrt.cli.options.models import ALLOW_MODEL, MODEL_PATH
from swarmrt.cli.options.runs import SET
from swarmrt.cli.options.saying import say
from swarmrt.cli.process.signals import fail_on_signals
from swarmrt.config import RunConfig
from swarmrt.config_toml import load_config
from swarmrt.foreign import for_terminal

if TYPE_CHECKING:
    import torch

OUT = typer.Option(None, "--out", metavar="FILE.safetensors", help="A state dict.")
HF = typer.Option(None, "--hf", metavar="DIR", help="A Hugging Face folder.")
NOT_WRITTEN = "no weights are written; begin again"


@fail_on_signals(NOT_WRITTEN)
def reference(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    out: Path = typer.Option(..., "--out", metavar="FILE.safetensors"),
    steps: int | None = typer.Option(None, min=1, help="Updates to apply; default run.steps."),
    device: str = DEVICE,
    overrides: list[str] = SET,
) -> None:
    """Train the same run in one process, without any of the runtime, and write its weights."""
    from swarmrt.model.builders import look_here
    from swarmrt.model.export import write_safetensors
    from swarmrt.model.reference import train_reference
    from swarmrt.model.repeatable import compute_repeatably

    config = load_config(path, overrides)
    look_here(config)
    check_device(device)
    compute_repeatably(config, device)
    steps = steps or config.run.steps
    every = max(1, steps // 20)

    def on_step(step: int, loss: float, lr: float) -> None:
        if step % every == 0 or step in (1, steps):
            print(f"step {step:>5}/{steps}  loss {loss:.4f}  lr {lr:.2e}", flush=True)

    tensors = train_reference(config, steps, on_step, device)
    write_safetensors(out, tensors)
    print(f"wrote {out}: the weights after {steps} steps")


@fail_on_signals(NOT_WRITTEN)
def export(
    run_dir: Path = typer.Argument(..., metavar="RUN_DIR"),
    out: Path | None = OUT,
    hf: Path | None = HF,
) -> None:
    """Join the stages of the newest checkpoint into one state dict."""
    check_outputs("export", out, hf)
    config, tensors, version = load_weights(run_dir)
    write_weights(config, tensors, out, hf, f"the weights after {version} steps")


def generate(
    run_dir: Path = typer.Argument(..., metavar="RUN_DIR"),
    prompt: str = typer.Option("import ", help="Text to go on from."),
    tokens: int = typer.Option(200, min=1, help="Tokens to sample."),
    temperature: float = typer.Option(0.7, min=0.0, help="0 takes the likeliest."),
    top_k: int = typer.Option(40, min=0, help="Sample among so many; 0 among all."),
    seed: int = typer.Option(0, min=0),
    allow_model: list[str] = ALLOW_MODEL,
    model_path: list[Path] = MODEL_PATH,
) -> None:
    """Sample from the newest checkpoint."""
    from swarmrt.data import open_codec
    from swarmrt.errors import UsageError
    from swarmrt.model.builders import check_consent, check_names, look_in
    from swarmrt.model.generate import generate as sample

    check_names(allow_model)
    config, tensors, _ = load_weights(run_dir)
    check_consent(config, allow_model, f"the checkpoint in {run_dir}")
    look_in(model_path)
    codec = open_codec(config)
    prompt_tokens = codec.encode(prompt)
    if not prompt_tokens:
        raise UsageError("--prompt is empty: give at least one character")
    generated = sample(config, tensors, prompt_tokens, tokens, temperature, top_k, seed)
    text = codec.decode([*prompt_tokens, *generated])
    sys.stdout.write((for_terminal(text) if sys.stdout.isatty() else text) + "\n")


def load_weights(run_dir: Path) -> tuple[RunConfig, dict[str, torch.Tensor], int]:
    """Configuration, joined weights and version of a run's newest checkpoint."""
    from swarmrt.model.export import join_states
    from swarmrt.runtime.checkpoints.checkpoint import load_newest

    checkpoint, states = load_newest(run_dir)
    return checkpoint.config, join_states(states), checkpoint.version


def check_outputs(command: str, out: Path | None, hf: Path | None) -> None:
    """Check that there is anything to write. Raises UsageError."""
    from swarmrt.errors import UsageError

    if out is None and hf is None:
        raise UsageError(f"{command} needs --out FILE.safetensors or --hf DIR, or both")


def write_weights(
    config: RunConfig,
    tensors: dict[str, torch.Tensor],
    out: Path | None,
    hf: Path | None,
    what: str,
    as_json: bool = False,
) -> None:
    """Write a whole model's weights where they are wanted, and say so, and what they are."""
    from swarmrt.model.export import write_hf_llama, write_safetensors

    if out is not None:
        write_safetensors(out, tensors)
        say(f"wrote {out}: {what}", as_json)
    if hf is not None:
        write_hf_llama(config, tensors, hf)
        say(f"wrote {hf}: load it with transformers' AutoModelForCausalLM.from_pretrained", as_json)
