"""A run's configuration: its sections, and what each key may be.

It is frozen and handed down. The trainer publishes it in the directory, so that every peer works
from the same one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swarmrt.errors import did_you_mean
from swarmrt.foreign import printable

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BUILDER_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
LEAST_MESSAGE_BYTES = 5 << 20  # the largest chunk of a state or a gradient fits into it
FRAME_SLACK_BYTES = 64  # targets are sealed, and tensors are padded
STDLIB = "stdlib"
MAX_NAME = 60  # characters shown of one that is unknown
SYNC = "sync"
DEMO = "demo"
STRATEGIES = (SYNC, "async", "diloco", "sparta", "lofi", DEMO)  # that are built in

Positive = Annotated[int, Field(gt=0)]
# Far more than is trained today: others' wishes are looped over before it is known what they cost.
Deep = Annotated[int, Field(gt=0, le=1 << 10)]
Layers = Annotated[int, Field(gt=0, le=1 << 12)]
Wide = Annotated[int, Field(gt=0, le=1 << 20)]
Long = Annotated[int, Field(gt=0, le=1 << 22)]
Many = Annotated[int, Field(gt=0, le=1 << 16)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Release = Annotated[str, Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}$")]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class Run(Section):
    """The run's name, and how long it goes on."""

    name: str = Field("first-light", description="the run's name in the directory")
    seed: int = Field(0, ge=0, lt=1 << 63, description="every draw of the run is a function of it")
    steps: Positive = Field(200, description="optimizer steps")
    access: Literal["invited", "open"] = Field(
        "invited", description='"open" lets anybody in, and read what a member can read'
    )
    swarmrt: Release | None = Field(
        None, description="release of swarmrt that makes the run; `train` writes it down"
    )
    libraries: str | None = Field(
        None, max_length=200, description="releases that the trainer has; `train` writes it down"
    )

    @model_validator(mode="after")
    def _name_is_a_plain_word(self) -> Self:
        if not RUN_NAME.fullmatch(self.name):
            raise ValueError(
                f"run.name {self.name!r} must be 1 to 64 letters, digits, '.', '_' or '-'"
            )
        return self


class Model(Section):
    """The built-in decoder, or your own builder `package.module:function`."""

    kind: str = Field(
        "decoder", max_length=200, description='"decoder", or your builder "pkg.module:builder"'
    )
    layers: Deep = Field(6, description="transformer blocks")
    width: Wide = Field(128, description="width of the residual stream")
    heads: Wide = Field(4, description="query heads")
    kv_heads: Wide = Field(2, description="key and value heads, a divisor of heads")
    sequence: Long = Field(128, description="tokens in a sequence")
    vocab: Long = Field(256, description="vocabulary; 256 for bytes")
    dropout: Fraction = Field(0.0, description="dropped share of each residual branch")
    dtype: Literal["float32", "float64", "bfloat16"] = Field(
        "float32", description='"float32" | "float64" | "bfloat16"'
    )
    recompute: bool = Field(
        False, description="keep inputs, not activations: less memory, a third more computing"
    )
    split_backward: bool = Field(
        True, description="pass gradients on before those of weights are made: some memory for time"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments of your own builder"
    )
    code: Fingerprint | None = Field(
        None, description="fingerprint of your builder's code; `train` writes it down"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.kind == "decoder":
            if self.width % self.heads or (self.width // self.heads) % 2:
                raise ValueError(
                    f"model.width {self.width} must be an even multiple of heads {self.heads}"
                )
            if self.heads % self.kv_heads:
                raise ValueError(
                    f"model.heads {self.heads} must be a multiple of kv_heads {self.kv_heads}"
                )
            if self.options:
                raise ValueError('model.options belongs to your own builder, not to "decoder"')
        elif not BUILDER_NAME.fullmatch(self.kind):
            raise ValueError(f'model.kind {self.kind!r} is neither "decoder" nor "package:builder"')
        return self


class Stages(Section):
    """The cut of the model's layers."""

    count: Layers | None = Field(None, description="stages, cut by the layers' measured cost")
    layers: Annotated[tuple[Layers, ...], Field(min_length=1, max_length=1 << 12)] | None = Field(
        None, description="or by hand: layers of each stage, for example [2, 2, 2]"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.count is not None and self.layers is not None and self.count != len(self.layers):
            raise ValueError(
                f"stages.count is {self.count}, but stages.layers lists {len(self.layers)} stages"
            )
        return self

    @property
    def number(self) -> int:
        """The number of stages."""
        if self.layers is not None:
            return len(self.layers)
        return self.count or 3


class Data(Section):
    """The text that is learned."""

    source: str = Field(
        STDLIB,
        description='"stdlib" (this Python\'s own sources), a text file, folder or .npy; '
        "relative to this file",
    )
    tokenizer: str | None = Field(
        None, description="a tokenizers JSON file; without one, text is read as bytes"
    )
    digest: Fingerprint | None = Field(
        None, description="fingerprint of the text's tokens; `train` writes it down"
    )
    held_out: Fraction = Field(0.05, description="share of the text kept for evaluation")


class Batch(Section):
    microbatch: Many = Field(4, description="sequences in a microbatch")
    microbatches: Many = Field(8, description="microbatches in a step")


class Optimizer(Section):
    kind: Literal["adamw", "sgd", "muon"] = Field(
        "adamw",
        description='"adamw" | "sgd" | "muon": for hidden matrices, with adamw for the rest',
    )
    lr: float = Field(3e-3, gt=0, description="peak learning rate")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description='after warm-up: "constant" | "linear" | "cosine"'
    )
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="of lr, at the last step")
    clip_norm: float = Field(
        1.0, ge=0, description="bound on the whole model's gradient norm; 0 for none"
    )
    weight_decay: float = Field(0.1, ge=0, description="on matrices; vectors are not decayed")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="adamw")
    eps: float = Field(1e-8, gt=0, description="adamw")
    momentum: Fraction = Field(0.0, description="sgd")
    muon_momentum: Fraction = Field(0.95, description="muon, Nesterov's")
    applied_by: Literal["all", "owners"] = Field(
        "all",
        description="an update: each replica makes it, or the owners of parts do for all, as where "
        'hardware is unlike: "all" | "owners"',
    )
    not_finite: Literal["stop", "skip"] = Field(
        "stop",
        description='a step whose gradient is not finite, whoever computes it: "stop" | "skip"',
    )
    staleness: Literal[0, 1] = Field(
        0, description="1: steps run on the version before, so that the pipeline never drains"
    )
    fresh_steps: int = Field(
        40, ge=0, description="with staleness, first steps that run on the version they update"
    )
    predict: bool = Field(
        True, description="with staleness, they run on what the moments expect of their own version"
    )

    def staleness_of(self, step: int) -> int:
        """Return how many versions lie between the weights that a step runs on and those that it
        updates."""
        return self.staleness if step >= self.fresh_steps else 0


class Averaging(Section):
    """The way in which replicas of a stage come to agree: by the gradients of a step, or by what
    each has changed in steps of its own."""

    strategy: str = Field(
        SYNC,
        max_length=200,
        description='"sync" | "async" | "diloco" | "sparta" | "lofi" | "demo", or your own '
        '"pkg.module:Class"',
    )
    local_batch: Many = Field(
        32, description="microbatches of a replica in each optimizer step of its own, at least"
    )
    most_late: float = Field(
        0.1,
        gt=0,
        le=1,
        description="share of the gradients that may be late: own steps are of more microbatches "
        "where they would be; 1 for any",
    )
    sync_steps: int = Field(0, ge=0, description="first steps, which are as with sync")
    islands: Annotated[int, Field(gt=0, le=1024)] = Field(
        1, description="parts of the swarm that routes stay in, as far as stages have replicas"
    )
    every_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="seconds between two rounds: a step has what is computed in them, but "
        "batch.microbatches at the most; 0 for always as many",
    )
    precision: Literal["model", "bfloat16", "int8"] = Field(
        "int8", description='what replicas send each other: "model" | "bfloat16" | "int8"'
    )
    share: float = Field(
        0.05, gt=0, le=1, description="sparta: share of the parameters in each round"
    )
    ranges: Many = Field(
        1, description="diloco: ranges of the parameters that take turns, one in each round"
    )
    outer_lr: float = Field(0.7, gt=0, le=10, description="diloco: rate of the outer step")
    outer_momentum: Fraction = Field(
        0.9, description="diloco: Nesterov momentum of the outer step; 0 for none"
    )
    alpha: float = Field(
        0.0, ge=0, le=1, description="share of its own weights that a replica keeps in each round"
    )
    chunk: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = Field(
        256, description="demo: parameters whose momentum is sent as frequencies together"
    )
    top_k: Annotated[int, Field(ge=1, le=1024)] = Field(
        6, description="demo: frequencies of each chunk that are sent"
    )
    beta: Fraction = Field(0.999, description="demo: share of its momentum that a replica keeps")

    @model_validator(mode="after")
    def _strategy_is_known(self) -> Self:
        if self.strategy not in STRATEGIES and not BUILDER_NAME.fullmatch(self.strategy):
            hint = did_you_mean(printable(self.strategy, MAX_NAME), STRATEGIES)
            raise ValueError(
                f"averaging.strategy {self.strategy!r} is neither one of {', '.join(STRATEGIES)} "
                f'nor "package.module:Class"{hint}'
            )
        return self

    @model_validator(mode="after")
    def _islands_are_averaged(self) -> Self:
        if self.islands > 1 and not self.is_on:
            raise ValueError(
                f'averaging.islands {self.islands} needs an averaging.strategy that is not "sync": '
                "there every gradient goes to all replicas of its stage, wherever its route was"
            )
        return self

    @model_validator(mode="after")
    def _chunk_has_its_top(self) -> Self:
        if self.top_k > self.chunk // 2 and self.top_k != self.chunk:
            raise ValueError(
                f"averaging.top_k {self.top_k} must be at most half of averaging.chunk "
                f"{self.chunk}, or all of it: else frequencies take more bytes than parameters"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Return whether replicas go apart and are averaged."""
        return self.strategy not in (SYNC, DEMO)

    @property
    def is_decoupled(self) -> bool:
        """Return whether replicas commit together, each with a momentum of its own."""
        return self.strategy == DEMO

    @property
    def is_own(self) -> bool:
        """Return whether the strategy is the user's own."""
        return self.strategy not in STRATEGIES


class Precision(Section):
    """The precision of what is computed, and what travels between stages, when not in the model's
    dtype."""

    compute: Literal["model", "bfloat16"] = Field(
        "model", description='"model" | "bfloat16": matrix products in it, weights in float32'
    )
    activations: Literal["model", "bfloat16"] = Field(
        "model", description='activations and their gradients on the wire: "model" | "bfloat16"'
    )
    gradients: Literal["model", "bfloat16", "int8"] = Field(
        "model", description='between replicas on the wire: "model" | "bfloat16" | "int8"'
    )


class Evaluation(Section):
    every_steps: int = Field(20, ge=0, description="0 evaluates only after the last step")
    microbatches: Many = Field(8, description="held-out microbatches of one evaluation")


class Links(Section):
    link: Literal["auto", "direct", "libp2p"] = Field(
        "auto", description='"direct" TCP and TLS, "libp2p", or "auto": direct where it can be'
    )
    beacons: Literal["udp", "link"] = Field(
        "udp", description='"udp" where it gets through, or "link": only over links'
    )
    streams: Annotated[int, Field(ge=1, le=16)] = Field(
        4, description="connections that one direct link may have where one is too narrow"
    )
    max_message_bytes: Annotated[int, Field(le=1 << 34)] = Field(
        256 << 20, description="a larger message from another process closes its link"
    )
    queue_s: float = Field(
        20.0, gt=0, le=3600, description="a peer whose queue is longer than this answers BUSY"
    )
    retain_bytes: int = Field(
        1 << 30,
        ge=0,
        le=1 << 42,
        description="frames a peer keeps so that others can recover; 0 for none",
    )
    record_ttl_s: float = Field(15.0, ge=3, le=600, description="life of a directory record")
    refresh_s: float = Field(
        1.0,
        ge=0.05,
        le=3600,
        description="how often the directory is read; less often while nothing changes",
    )

    @model_validator(mode="after")
    def _chunks_fit(self) -> Self:
        if self.max_message_bytes < LEAST_MESSAGE_BYTES:
            raise ValueError(
                f"links.max_message_bytes {self.max_message_bytes} must be at least "
                f"{LEAST_MESSAGE_BYTES}: state and gradients travel in chunks of up to that size"
            )
        return self


class Wiring(Section):
    """The choice of the replica that gets the next microbatch."""

    policy: str = Field(
        "iwrr",
        max_length=200,
        description='"iwrr" (interleaved weighted round-robin), or your own "pkg.module:Class"',
    )

    @model_validator(mode="after")
    def _policy_has_a_name(self) -> Self:
        if self.policy != "iwrr" and not BUILDER_NAME.fullmatch(self.policy):
            raise ValueError(
                f'wiring.policy {self.policy!r} is neither "iwrr" nor "package.module:Class"'
            )
        return self


class Rebalancing(Section):
    """The moves of peers that are started with `serve --stage auto`: who serves what, and who holds
    a second stage's state for when a replica is lost."""

    enabled: bool = Field(True, description="false leaves every peer where its owner has put it")
    standby_share: float = Field(
        0.25, ge=0, le=1, description="share of the peers that hold a second stage's state"
    )
    period_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="seconds between decisions while nobody comes, goes or has loaded a state",
    )


class Checkpoint(Section):
    every_steps: int = Field(50, ge=0, description="0 writes only the one after the last step")
    keep: Positive = Field(2, description="newest checkpoints kept")


class RunConfig(Section):
    """A training job. Every section and key has a default."""

    run: Run = Field(default_factory=Run)  # type: ignore[arg-type]
    model: Model = Field(default_factory=Model)  # type: ignore[arg-type]
    stages: Stages = Field(default_factory=Stages)  # type: ignore[arg-type]
    data: Data = Field(default_factory=Data)  # type: ignore[arg-type]
    batch: Batch = Field(default_factory=Batch)  # type: ignore[arg-type]
    optimizer: Optimizer = Field(default_factory=Optimizer)  # type: ignore[arg-type]
    precision: Precision = Field(default_factory=Precision)  # type: ignore[arg-type]
    averaging: Averaging = Field(default_factory=Averaging)  # type: ignore[arg-type]
    evaluation: Evaluation = Field(default_factory=Evaluation)  # type: ignore[arg-type]
    links: Links = Field(default_factory=Links)  # type: ignore[arg-type]
    wiring: Wiring = Field(default_factory=Wiring)  # type: ignore[arg-type]
    rebalancing: Rebalancing = Field(default_factory=Rebalancing)  # type: ignore[arg-type]
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _precision_is_the_models_or_less(self) -> Self:
        if self.precision.compute != "model" and self.model.dtype != "float32":
            raise ValueError(
                f"precision.compute {self.precision.compute!r} is for models of dtype float32, "
                f"not {self.model.dtype}"
            )
        if self.precision.gradients != "model" and self.model.dtype == "float64":
            raise ValueError(
                f"precision.gradients {self.precision.gradients!r} is for gradients in float32; "
                "those of a model of dtype float64 are in float64"
            )
        return self

    @model_validator(mode="after")
    def _averaging_goes_with_the_rest(self) -> Self:
        averaging, optimizer = self.averaging, self.optimizer
        if not averaging.is_on:
            return self
        what = f"averaging.strategy {averaging.strategy!r}"
        if optimizer.staleness:
            raise ValueError(
                f"{what} needs optimizer.staleness = 0: steps overlap without it, as no replica "
                "waits for a round"
            )
        if optimizer.applied_by != "all":
            raise ValueError(
                f'{what} needs optimizer.applied_by = "all": each replica makes steps of its own, '
                "and what they agree on is the same whatever their hardware"
            )
        if averaging.precision != "model" and self.model.dtype == "float64":
            raise ValueError(
                f"averaging.precision {averaging.precision!r} is for parameters in float32; those "
                'of a model of dtype float64 are sent as they are: averaging.precision = "model"'
            )
        if averaging.every_s and averaging.sync_steps:
            raise ValueError(
                "averaging.every_s needs averaging.sync_steps = 0: steps that all replicas share "
                "are as long as batch.microbatches says"
            )
        if averaging.strategy == "lofi" and optimizer.not_finite == "skip":
            raise ValueError(
                'averaging.strategy "lofi" needs optimizer.not_finite = "stop": a step that is '
                "skipped takes with it all that has not been averaged"
            )
        return self

    @model_validator(mode="after")
    def _decoupled_momentum_goes_with_the_rest(self) -> Self:
        optimizer, demo = self.optimizer, 'averaging.strategy "demo" needs'
        if self.averaging.every_s and not self.averaging.is_on:
            raise ValueError(
                f"averaging.every_s is for replicas that make steps of their own, and not for "
                f"averaging.strategy {self.averaging.strategy!r}"
            )
        if not self.averaging.is_decoupled:
            return self
        if optimizer.kind != "sgd" or optimizer.momentum:
            raise ValueError(
                f'{demo} optimizer.kind = "sgd" with optimizer.momentum = 0: it steps by signs, '
                "and averaging.beta is its momentum"
            )
        if optimizer.clip_norm:
            raise ValueError(f"{demo} optimizer.clip_norm = 0: signs have no length to be bounded")
        if optimizer.staleness or self.averaging.sync_steps:
            raise ValueError(
                f"{demo} optimizer.staleness = 0 and averaging.sync_steps = 0: all of its steps "
                "are synchronous, and alike"
            )
        if optimizer.applied_by != "all":
            raise ValueError(
                f'{demo} optimizer.applied_by = "all": a step by signs rounds alike everywhere'
            )
        if self.averaging.precision != "model" and self.model.dtype == "float64":
            raise ValueError(
                f"averaging.precision {self.averaging.precision!r} is for parameters in float32; "
                'those of a model of dtype float64 have averaging.precision = "model"'
            )
        return self

    @model_validator(mode="after")
    def _activations_fit(self) -> Self:
        needed, most = self.frame_bytes, self.links.max_message_bytes
        if self.model.kind == "decoder" and needed > most:
            raise ValueError(
                f"links.max_message_bytes {most} is less than the {needed} bytes of a microbatch's "
                "activations; raise it, or make batch.microbatch or model.sequence less"
            )
        return self

    @property
    def overlap(self) -> int:
        """Return how many steps are worked on beside the one that the next version is made of."""
        return 1 if self.averaging.is_on else self.optimizer.staleness

    @property
    def fresh_steps(self) -> int:
        """Return how many of the first steps wait for the version before to be made."""
        averaging = self.averaging
        return averaging.sync_steps + 1 if averaging.is_on else self.optimizer.fresh_steps

    @property
    def replicas_precision(self) -> Literal["model", "bfloat16", "int8"]:
        """Return the precision of what replicas of a stage send each other for a version."""
        return self.averaging.precision if self.averaging.is_on else self.precision.gradients

    @property
    def microbatch_tokens(self) -> int:
        """Return how many targets a microbatch has."""
        return self.batch.microbatch * self.model.sequence

    @property
    def frame_bytes(self) -> int:
        """Return how many bytes the activations of a microbatch of the built-in decoder have, with
        its targets, as they travel between stages."""
        tokens = self.microbatch_tokens
        is_half = "bfloat16" in (self.model.dtype, self.precision.activations)
        itemsize = 2 if is_half else 8 if self.model.dtype == "float64" else 4
        return tokens * (self.model.width * itemsize + 8) + FRAME_SLACK_BYTES

    @property
    def num_stages(self) -> int:
        return self.stages.number

    @property
    def tokens_per_step(self) -> int:
        return self.batch.microbatches * self.microbatch_tokens

    def told_to_others(self) -> RunConfig:
        """Return this run as others may know it: not where its text lies on this machine."""
        tokenizer = self.data.tokenizer
        names = {
            "source": Path(self.data.source).name,
            "tokenizer": Path(tokenizer).name if tokenizer is not None else None,
        }
        return self.model_copy(update={"data": self.data.model_copy(update=names)})

    def with_stage_layers(self, layers: tuple[int, ...]) -> RunConfig:
        """Return this run with its cut written down, as the trainer publishes it."""
        stages = Stages(count=len(layers), layers=layers)
        return self.model_copy(update={"stages": stages})
