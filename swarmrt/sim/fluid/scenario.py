"""Scenarios as TOML: stages, classes of peers, churn. `Scenario.scene` draws one from a seed."""

from __future__ import annotations

import math
import random
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from swarmrt.config import Section
from swarmrt.errors import ConfigError
from swarmrt.foreign import printable
from swarmrt.scheduler.rebalancing.swarm import Limits, Stage
from swarmrt.scheduler.wiring.policy import BUILT_IN
from swarmrt.sim.fluid import churn
from swarmrt.sim.fluid.recorded import GRADIENT_SHARE
from swarmrt.sim.fluid.scene import Scene, Traits
from swarmrt.sim.fluid.trace import Change, read_trace

MBIT = 125_000.0  # bytes
GB = 1e9
MESSAGES = 2  # that a peer receives, and sends, for a microbatch: forward and backward

KINDS = ("constrained-float", "Between")  # what pydantic calls the two in a place of an error

Amount = Annotated[float, Field(gt=0, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class Between(Section):
    """A number that is drawn for each peer."""

    low: Amount
    high: Amount
    kind: Literal["uniform", "log-uniform"] = "log-uniform"

    @model_validator(mode="after")
    def _low_is_lower(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is more than high {self.high:g}")
        return self

    def draw(self, rng: random.Random) -> float:
        if self.kind == "uniform":
            return rng.uniform(self.low, self.high)
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


Drawn = Amount | Between


class World(Section):
    """The times of a scenario: how long it goes on, and what takes how long."""

    hours: float = Field(12.0, gt=0, le=24 * 366, description="a trace ends by itself")
    detect_s: Seconds = Field(5.0, description="from a peer's end until the trainer knows")
    decide_s: Seconds = Field(2.0, description="from a decision until it is obeyed")
    redo_s: Seconds = Field(0.0, description="work done again when a stage's state was lost")
    step_microbatches: Amount = Field(256.0, description="microbatches in a step")
    noise: Share = Field(0.0, description="of a microbatch's duration, as a share of it")
    latency_s: Seconds = Field(0.05, description="of a message, where microbatches flow")
    staleness: Literal[0, 1] = Field(1, description="1: the next step runs while one is reduced")
    reduce_s: Seconds | None = Field(
        None, description="from a step's last microbatch until it is committed; default: by links"
    )
    wiring: str = Field(BUILT_IN, description="the policy of it, where microbatches flow")


class Stages(Section):
    """A stage, or some that are alike."""

    count: int = Field(1, ge=1, le=1024)
    compute_s: Amount = Field(1.0, description="a microbatch, at a peer of speed 1")
    state_bytes: Amount = Field(3e9, description="parameters and what the optimizer keeps")
    gradient_bytes: Amount | None = Field(None, description="of a step; default: state / 12")
    message_bytes: Amount = Field(2e6, description="one activation or its gradient")
    least_replicas: int = Field(1, ge=1, le=10_000)

    def stage(self) -> Stage:
        gradient = self.gradient_bytes or self.state_bytes * GRADIENT_SHARE
        return Stage(self.compute_s, self.state_bytes, gradient, self.least_replicas)


class Peers(Section):
    """A class of peers, and which part of all it is, or who they are."""

    share: Amount = 1.0
    names: tuple[str, ...] = Field((), description="of a trace; no share counts then")
    speed: Drawn = 1.0
    downlink_mbps: Drawn = 1000.0
    uplink_mbps: Drawn = 1000.0
    memory_gb: Drawn = 1e6
    most_states: int = Field(2, ge=1, le=1024, description="that it holds at a time")
    listening_share: Share = Field(0.5, description="of the downlink, for a standby's gradients")
    only_stages: tuple[int, ...] | None = None
    may_move: bool = True

    def traits(self, rng: random.Random, stages: list[Stages]) -> Traits:
        """Draw a peer. Where its link carries fewer microbatches than it computes, that is its
        rate, by the stage for which it matters most."""
        speed, down, up, memory = (
            drawn if isinstance(drawn, float) else drawn.draw(rng)
            for drawn in (self.speed, self.downlink_mbps, self.uplink_mbps, self.memory_gb)
        )
        link = min(down, up) * MBIT
        for stage in stages:
            speed = min(speed, link / (MESSAGES * stage.message_bytes) * stage.compute_s)
        limits = Limits(
            stages=None if self.only_stages is None else frozenset(self.only_stages),
            memory_bytes=memory * GB,
            most_states=self.most_states,
            downlink_bytes_per_s=down * MBIT,
            listening_share=self.listening_share,
            may_move=self.may_move,
        )
        return Traits(speed, limits)


class Churn(Section):
    """The churn: who comes and goes, recorded or made up."""

    kind: Literal["none", "poisson", "diurnal", "heavy-tailed", "mass", "trace"] = "poisson"
    peers: int = Field(24, ge=1, le=100_000, description="in the mean, and at the beginning")
    mean_life_s: Amount = 3600.0
    file: str | None = Field(None, description="of a trace, beside the scenario")

    @model_validator(mode="after")
    def _trace_has_a_file(self) -> Self:
        if (self.kind == "trace") != (self.file is not None):
            raise ValueError('kind = "trace" and file belong together')
        return self

    def changes(self, folder: Path, length_s: float, seed: int) -> tuple[Change, ...]:
        if self.file is not None:
            return read_trace(folder / self.file)
        if self.kind == "none":
            return tuple(Change(0.0, True, f"peer{number}") for number in range(self.peers))
        made = {
            "poisson": churn.poisson,
            "diurnal": churn.diurnal,
            "heavy-tailed": churn.heavy_tailed,
            "mass": churn.mass_events,
        }[self.kind]
        return made(self.peers, self.mean_life_s, length_s, seed)


class Scenario(Section):
    """A whole scenario."""

    world: World = Field(default_factory=lambda: World.model_validate({}))
    stages: list[Stages] = Field(min_length=1, max_length=1024)
    peers: list[Peers] = Field(
        default_factory=lambda: [Peers.model_validate({})], min_length=1, max_length=1024
    )
    churn: Churn = Field(default_factory=lambda: Churn.model_validate({}))

    @model_validator(mode="after")
    def _stages_are_there(self) -> Self:
        count = sum(stage.count for stage in self.stages)
        for peers in self.peers:
            for stage in peers.only_stages or ():
                if not 0 <= stage < count:
                    raise ValueError(f"only_stages names {stage}, but the last is {count - 1}")
        return self

    def scene(self, folder: Path, seed: int) -> Scene:
        """Draw peers and churn from a seed. A trace's file is beside the scenario, in `folder`."""
        length_s = self.world.hours * 3600
        changes = self.churn.changes(folder, length_s, seed)
        if self.churn.kind == "trace":
            length_s = max(change.at_s for change in changes) or length_s
        return self.scene_of(changes, length_s, seed)

    def scene_of(self, changes: tuple[Change, ...], length_s: float, seed: int) -> Scene:
        """Return the scene in which these come and go. Raises ConfigError for somebody of no
        class."""
        stages = [stage for stage in self.stages for _ in range(stage.count)]
        drawn = [peers for peers in self.peers if not peers.names]
        shares = [peers.share for peers in drawn]
        named = {name: peers for peers in self.peers for name in peers.names}
        traits = {}
        for name in dict.fromkeys(change.name for change in changes):
            rng = random.Random(f"{seed}/traits/{name}")
            if name not in named and not drawn:
                raise ConfigError(
                    f"peers.names: {printable(name)} is in the trace, and in no class"
                )
            peers = named[name] if name in named else rng.choices(drawn, shares)[0]
            traits[name] = peers.traits(rng, stages)
        return Scene(
            stages=tuple(stage.stage() for stage in stages),
            changes=changes,
            end_s=length_s,
            traits=traits,
            detect_s=self.world.detect_s,
            decide_s=self.world.decide_s,
            redo_s=self.world.redo_s,
            step_microbatches=self.world.step_microbatches,
            noise=self.world.noise,
            latency_s=self.world.latency_s,
            staleness=self.world.staleness,
            reduce_s=self.world.reduce_s,
            wiring=self.world.wiring,
        )


def read_scenario(path: Path) -> Scenario:
    """Return the scenario of a file. Raises ConfigError naming what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        errors = error.errors()  # of a number or a table: two, the last of which is ours
        first = next((one for one in errors if one["type"] == "value_error"), errors[0])
        where = ".".join(str(part) for part in first["loc"] if part not in KINDS)
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {printable(f'{where}: {what}' if where else what)}") from None
