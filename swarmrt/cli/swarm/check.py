"""The command `swarmrt check`: everything that a run needs, tried without a swarm."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.cli.options.runs import SET
from swarmrt.config_toml import load_config
from swarmrt.foreign import for_terminal


def check(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    overrides: list[str] = SET,
) -> None:
    """Read the data, cut the model, and compare its stages with the model in one piece."""
    from swarmrt.data import open_data
    from swarmrt.model.builders import look_here
    from swarmrt.model.partition import resolve
    from swarmrt.model.sizing import footprint
    from swarmrt.runtime.computing.free_memory import describe
    from swarmrt.runtime.trainer.trial import try_model
    from swarmrt.scheduler.wiring.policy import policy_of

    config = load_config(path, overrides)
    data = open_data(config)
    print(for_terminal(f"data: {data.description}"), flush=True)
    look_here(config)
    policy_of(config.wiring.policy)
    config = resolve(config)
    layers = config.stages.layers
    assert layers is not None
    print(f"model: {config.model.kind}, {sum(layers)} layers in {len(layers)} stages", flush=True)
    first = 0
    for stage, number in enumerate(layers):
        needed = footprint(config, stage)
        memory = describe(needed.device_bytes + needed.host_bytes)
        span = f"layer {first}" if number == 1 else f"layers {first} to {first + number - 1}"
        what = f"{needed.parameters:,} parameters; serving it takes {memory}"
        print(f"stage {stage}: {span}, {what}", flush=True)
        first += number
    trial = try_model(config, data)
    for note in trial.notes:
        print(for_terminal(f"note: {note}"))
    if trial.was_made:
        print(
            "a microbatch through these stages gives what it gives through the model in one piece"
        )
