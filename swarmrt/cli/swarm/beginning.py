"""The checks before a run begins or goes on: of its configuration, its data, its folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, UsageError
from swarmrt.run_identity import pinned, without_pins
from swarmrt.runtime.trainer.folders import read_run, refuse_changes, refuse_used

if TYPE_CHECKING:
    from swarmrt.data import Data
    from swarmrt.runtime.checkpoints.checkpoint import Checkpoint


def load_run(
    config: RunConfig, resume: Path | None, allowed: Collection[str]
) -> tuple[RunConfig, RunConfig | None, Checkpoint | None]:
    """Return the configuration, with the cut of the run to continue; what that run was when it went
    on last, if it is written down; and its newest checkpoint, checked whole, if it has one."""
    from swarmrt.runtime.checkpoints.checkpoint import has_begun, newest_checkpoint

    if resume is None:
        if allowed:
            raise UsageError("--allow-change belongs to --resume")
        return config, None, None
    checkpoint = None if has_begun(resume) else newest_checkpoint(resume)
    known = read_run(resume) or (checkpoint.config if checkpoint is not None else None)
    layers = known.stages.layers if known is not None else None
    if layers is not None:
        if config.stages.layers not in (None, layers) or config.num_stages != len(layers):
            raise CheckpointError(
                f"{resume}: this run has {len(layers)} stages of {list(layers)} layers, and goes "
                "on with them"
            )
        config = config.with_stage_layers(layers)
    return without_pins(config, allowed), known, checkpoint


def identified(
    config: RunConfig, data: Data, known: RunConfig | None, checkpoint: Checkpoint | None
) -> RunConfig:
    """Return the configuration with the cut, and all that the run is by content. Raises UsageError
    when a state of what the run was cannot be one of it."""
    from swarmrt.model.builders import look_here
    from swarmrt.model.code import code_of
    from swarmrt.model.partition import resolve
    from swarmrt.model.same_state import check_same_state, check_state_fits
    from swarmrt.scheduler.wiring.policy import policy_of

    look_here(config)
    policy_of(config.wiring.policy)  # or it says now that there is none
    code = code_of(config)  # before the builder runs, as at a peer
    if known is not None:
        check_same_state(known, config)
        if checkpoint is not None and known.model.code not in (None, code):
            check_state_fits(config, checkpoint.load())
    return pinned(resolve(config), code, data.fingerprint)


def island_notes(config: RunConfig, replicas: Sequence[int]) -> list[str]:
    """Return a sentence for people if a run that waits for so many replicas of each stage begins in
    fewer islands than it is to have."""
    wanted, least = config.averaging.islands, min(replicas)
    if least >= wanted:
        return []
    return [
        f"averaging.islands is {wanted}; islands at the beginning: {least}, as stage "
        f"{list(replicas).index(least)} begins with {least} of its replicas, and each needs one"
    ]


def check_folder(
    run_dir: Path,
    resume: Path | None,
    config: RunConfig,
    known: RunConfig | None,
    allowed: Collection[str],
) -> None:
    """Check that the folder is this run's. Raises UsageError."""
    if resume is None or not _is_one(resume, run_dir):
        refuse_used(run_dir)
    if resume is not None and known is not None:
        refuse_changes(known, config, allowed, resume)


def _is_one(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
