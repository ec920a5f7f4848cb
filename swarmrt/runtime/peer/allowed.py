"""The seats that a process may hold: what its owner allows, within this machine's memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError, UsageError
from swarmrt.ids import PeerId
from swarmrt.model.sizing import footprint
from swarmrt.runtime.computing.free_memory import check_fits
from swarmrt.runtime.peer.serve_options import Moves, ServeOptions
from swarmrt.scheduler.settings import StewardSettings

MOST_ROOMS = 2  # states that a process holds at a time: the one that it serves, and another one


@dataclass(frozen=True)
class Allowed:
    """The stages that a process may serve, and for how many it has room at a time."""

    stages: tuple[int, ...]
    rooms: int

    def __str__(self) -> str:
        """Return it for people."""
        held = "one state" if self.rooms == 1 else f"{self.rooms} states"
        return f"stages {', '.join(map(str, self.stages))}, with room for {held}"


def with_stages(config: RunConfig, options: ServeOptions) -> tuple[ServeOptions, Allowed | None]:
    """Return the options with the stages that it may serve, where that is not settled; and for how
    many it has room. Raises UsageError where that is none."""
    if options.moves is None:
        return options, None
    may = _allowed(config, options.moves, options.device, options.max_memory_bytes)
    return replace(options, stages=may.stages, is_spare=True), may


def steward_settings(
    me: PeerId,
    trainer: PeerId,
    config: RunConfig,
    options: ServeOptions,
    may: Allowed,
    begins_with: tuple[int, ...],
) -> StewardSettings:
    """Return the settings of a process that may hold these seats."""
    assert options.moves is not None
    return StewardSettings(
        me,
        trainer,
        config.num_stages,
        may.stages,
        may.rooms,
        is_pinned=options.moves.is_pinned,
        begins_with=begins_with,
        down_bytes_per_s=options.down_bytes_per_s or 0.0,
        trainer_gone_s=options.trainer_gone_s,
    )


def _allowed(
    config: RunConfig, moves: Moves, device: str, max_memory_bytes: float | None
) -> Allowed:
    wanted = moves.stages or tuple(range(config.num_stages))
    unknown = [stage for stage in wanted if not 0 <= stage < config.num_stages]
    if unknown:
        raise UsageError(
            f"the run has stages 0 to {config.num_stages - 1}; there is no stage {unknown[0]}"
        )
    sizes = {stage: footprint(config, stage) for stage in wanted}
    fitting, why = [], ModelError("no stage was asked for")
    for stage in wanted:
        try:
            check_fits(sizes[stage], device, max_memory_bytes, stage, [])
        except ModelError as error:
            why = error
        else:
            fitting.append(stage)
    if not fitting:
        raise why
    largest = sorted(fitting, key=lambda s: -(sizes[s].device_bytes + sizes[s].host_bytes))
    rooms = 1
    for stage in largest[1:MOST_ROOMS]:
        try:
            check_fits(sizes[stage], device, max_memory_bytes, stage, [sizes[largest[0]]])
            rooms += 1
        except ModelError:
            break
    return Allowed(tuple(fitting), rooms)
