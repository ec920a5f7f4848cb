"""The ways in which the processes of a swarm on this machine are started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError
from swarmrt.lab.bench.emulation import Speed
from swarmrt.runtime.faults.failpoints import Rule


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that there is to say beside the run and its replicas."""

    processes: Sequence[tuple[int, ...]] = ()
    """The stages of each process's seats, to begin with; by default one process a replica."""
    spares: Sequence[int] = ()  # of each stage
    movers: int = 0  # processes more, that serve where they help most
    threads: int | None = None  # torch's in each peer; by default they share the cores
    device: str = "cpu"  # that peers compute on
    forks: bool = True  # else each process loads its libraries by itself, as on its own machine
    speeds: Sequence[Sequence[Speed]] | None = None  # emulated: by stage, each replica in turn
    link_delay_s: float = 0.0  # how much longer every message between two processes takes
    link_rate: str | None = None  # that each process's links send together, as `serve` takes it
    variables: Mapping[tuple[int, int], Mapping[str, str]] = field(default_factory=dict)
    """More of the environment of a stage's replica of that number, which is not forked then."""
    failpoints: Sequence[Rule] = ()  # that are on in each process of their role
    trainer_arguments: Sequence[str] = ()
    is_trainer_shown: bool = False  # what it prints goes to our own output


def consent(config: RunConfig) -> list[str]:
    """Return what `swarmrt serve` is told where the run and the machine have the same owner."""
    arguments = ["--memory", "none"]
    allowed = [("--allow-model", config.model.kind), ("--allow-model", config.averaging.strategy)]
    for option, name in (*allowed, ("--allow-policy", config.wiring.policy)):
        if ":" in name:
            arguments += [option, name, "--model-path", str(Path.cwd())]
    return arguments


def replicas_of(processes: Sequence[tuple[int, ...]], num_stages: int) -> tuple[int, ...]:
    """Return how many seats each stage has in these processes. Raises UsageError when they are not
    what a run of so many stages can be served by."""
    seats = Counter(stage for stages in processes for stage in stages)
    others = sorted(set(seats) - set(range(num_stages)))
    missing = [stage for stage in range(num_stages) if not seats[stage]]
    if others:
        raise UsageError(f"there is no stage {others[0]}: stages are 0 to {num_stages - 1}")
    if missing:
        raise UsageError(f"no process has a seat at stage {missing[0]}; each stage needs one")
    return tuple(seats[stage] for stage in range(num_stages))
