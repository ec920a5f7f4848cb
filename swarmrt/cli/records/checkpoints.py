"""The commands `swarmrt checkpoint list` and `verify`: what a run's folder holds of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.options.models import ALLOW_MODEL, MODEL_PATH
from swarmrt.errors import CheckpointError
from swarmrt.foreign import for_terminal

if TYPE_CHECKING:
    from swarmrt.runtime.checkpoints.checkpoint import Checkpoint, Unreadable

checkpoint = typer.Typer(
    help="The checkpoints in a run's folder: list them, see that they can be used.",
    no_args_is_help=True,
)
RUN_DIR = typer.Argument(..., metavar="RUN_DIR")


@checkpoint.command("list")
def list_all(
    run_dir: Path = RUN_DIR,
    as_json: bool = typer.Option(False, "--json", help="Print them as one JSON array."),
) -> None:
    """Print all of them, oldest first; nothing is read but manifests and sizes."""
    from swarmrt.runtime.checkpoints.checkpoint import all_checkpoints

    rows = [_row(one) for one in all_checkpoints(run_dir)]
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'step':>9} {'epoch':>6}  {'written':19} {'bytes':>19} {'stages':>6}")
    for row in rows:
        if "problem" in row:
            print(for_terminal(f"{row['version']:>9}  {row['problem']}"))
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["written"]))
        size = f"{row['bytes']:,}"
        print(f"{row['version']:>9} {row['epoch']:>6}  {at} {size:>19} {row['stages']:>6}")


@checkpoint.command()
def verify(
    run_dir: Path = RUN_DIR,
    version: int | None = typer.Option(
        None, "--version", min=0, metavar="N", help="Only the one of this step."
    ),
    allow_model: list[str] = ALLOW_MODEL,
    model_path: list[Path] = MODEL_PATH,
) -> None:
    """Read all of them, and compare each with the layout of its run's model. Exits with 1 when one
    cannot be used."""
    from swarmrt.model.builders import check_names, look_in
    from swarmrt.runtime.checkpoints.checkpoint import all_checkpoints

    check_names(allow_model)
    look_in(model_path)
    found = all_checkpoints(run_dir)
    wanted = [one for one in found if version in (None, one.version)]
    if not wanted:
        raise CheckpointError(f"{run_dir}: holds no checkpoint of step {version}")
    is_whole = True
    for one in wanted:
        try:
            said = _verified(one, allow_model)
        except CheckpointError as error:
            said, is_whole = str(error), False
        print(for_terminal(f"step {one.version}: {said}"), flush=True)
    if not is_whole:
        raise typer.Exit(1)


def _row(one: Checkpoint | Unreadable) -> dict[str, Any]:
    from swarmrt.runtime.checkpoints.checkpoint import Unreadable

    row: dict[str, Any] = {"version": one.version, "path": str(one.path)}
    if isinstance(one, Unreadable):
        return row | {"problem": one.reason}
    stages = one.manifest.stages
    return row | {
        "epoch": one.manifest.epoch,
        "written": one.written_at,
        "bytes": sum(stage.size_bytes for stage in stages),
        "stages": len(stages),
    }


def _verified(one: Checkpoint | Unreadable, allowed: list[str]) -> str:
    """Return in words what was found to be right. Raises CheckpointError naming what is not."""
    from swarmrt.model.builders import check_consent, own_code
    from swarmrt.model.layout import layout_from
    from swarmrt.runtime.checkpoints.checkpoint import Unreadable

    states = one.load()
    assert not isinstance(one, Unreadable), "loading it has raised an error"
    config = one.config
    if asked := [name for name in own_code(config) if name not in allowed]:
        return f"whole; pass --allow-model {asked[0]} to compare it with its model too"
    check_consent(config, allowed, str(one.path))
    digests = one.parameter_digests or ("",) * len(states)
    for stage, (state, its_digest) in enumerate(zip(states, digests, strict=True)):
        source = str(one.path / one.manifest.stages[stage].file)
        layout_from(config, stage).check(state, its_digest, source)
    return "whole, and as its run's model says"
