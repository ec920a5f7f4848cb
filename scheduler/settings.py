"""The settings of a core: what a run's configuration, and the process itself, say of it.

Both worlds make them here of a configuration, so that a key which a core needs stands in one place.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from swarmrt.config import RunConfig
from swarmrt.ids import NO_ISLAND, PeerId
from swarmrt.recorded import Recorded
from swarmrt.scheduler.timing.intervals import MOST_BEACONS_PER_S

MANY = 1 << 31  # where a log's settings do not say how many


class PeerSettings(Recorded, frozen=True):
    me: PeerId
    trainer: PeerId
    stage: int
    num_stages: int
    seed: int
    queue_s: float
    gradient_bytes: int  # of the stage
    retain_bytes: int  # frames kept for recovery
    record_ttl_s: float  # how long the directory may name a peer that is gone
    most_left: int = 0  # microbatches whose weights' gradients backward may leave for later
    staleness: int = 0  # versions between the oldest weights that a step runs on and its own
    fresh_steps: int = 0  # first ones, whose staleness is 0
    microbatches: int = MANY  # in a step
    eval_microbatches: int = MANY  # in an evaluation
    trainer_gone_s: float = math.inf  # for which it waits for a trainer that is gone
    wire_bytes: int = 0  # of a gradient as it travels; 0 where a log does not say
    update_bytes: int = 0  # of parameters and moments, as owners of parts give them
    is_spare: bool = False  # it takes work only in the place of a replica that is lost
    island: int = NO_ISLAND  # that it asks for, if it asks for any
    wiring: str = "iwrr"  # the policy
    local_from: int = MANY  # the first step in which replicas make steps of their own
    local_batch: int = 0  # microbatches of an own step, at least; 0 where a log does not say
    most_late: float = 1.0  # share of the gradients that own steps may make late
    holds: int = 0  # microbatches that its memory has room for, between forward and backward

    @property
    def averages(self) -> bool:
        """Return whether replicas make steps of their own, from some step on."""
        return self.local_from < MANY

    @classmethod
    def of(
        cls,
        config: RunConfig,
        me: PeerId,
        trainer: PeerId,
        stage: int,
        *,
        gradient_bytes: int,
        wire_bytes: int = 0,
        update_bytes: int = 0,
        trainer_gone_s: float = math.inf,
        is_spare: bool = False,
        island: int = NO_ISLAND,
        holds: int = 0,
    ) -> PeerSettings:
        return cls(
            me=me,
            trainer=trainer,
            stage=stage,
            num_stages=config.num_stages,
            seed=config.run.seed,
            queue_s=config.links.queue_s,
            gradient_bytes=gradient_bytes,
            retain_bytes=config.links.retain_bytes,
            record_ttl_s=config.links.record_ttl_s,
            most_left=stage if config.model.split_backward else 0,
            staleness=config.overlap,
            fresh_steps=config.fresh_steps,
            microbatches=config.batch.microbatches,
            eval_microbatches=config.evaluation.microbatches,
            trainer_gone_s=trainer_gone_s,
            wire_bytes=wire_bytes,
            update_bytes=update_bytes,
            is_spare=is_spare,
            island=island,
            wiring=config.wiring.policy,
            local_from=_local_from(config),
            local_batch=config.averaging.local_batch if config.averaging.is_on else 0,
            most_late=config.averaging.most_late if config.averaging.is_on else 1.0,
            holds=holds,
        )


class StewardSettings(Recorded, frozen=True):
    """The settings of a process that serves where it helps most."""

    me: PeerId
    trainer: PeerId
    num_stages: int
    stages: tuple[int, ...]  # that it may serve
    rooms: int  # states that it has room for at a time
    is_pinned: bool = False  # it stays where it serves
    begins_with: tuple[int, ...] = ()  # stages at which it has a seat from the start
    down_bytes_per_s: float = 0.0  # that states and reduces may take; 0 where nobody says
    listening_share: float = 0.0  # of that, for reduces of a second stage; 0 for the usual one
    trainer_gone_s: float = math.inf  # for which it waits for a trainer that is gone


class StepTold(NamedTuple):
    """A step that an earlier incarnation has committed."""

    seconds: float
    members: tuple[PeerId, ...]


class TrainerSettings(Recorded, frozen=True):
    me: PeerId
    seed: int
    epoch: int
    start_version: int  # of the checkpoint that is resumed, or 0
    steps: int  # the version at which the run is done
    microbatches: int
    eval_every: int  # versions; 0 evaluates only the last one
    eval_microbatches: int
    checkpoint_every: int  # versions; 0 keeps only the last one
    needed: tuple[int, ...]  # replicas to wait for, by stage
    start_digests: tuple[str, ...]  # of the start version, by stage; empty when not known
    record_ttl_s: float  # how long the directory may name a peer that is gone
    resume: bool  # go on from what the peers hold, if that is newer
    staleness: int = 0  # versions between the oldest weights that a step runs on and its own
    fresh_steps: int = 0  # first ones, whose staleness is 0
    microbatch_tokens: int = 0  # targets of each; 0 when a log does not say
    least_loss: float = -math.inf  # that a microbatch can have
    secret: str = ""  # of this incarnation, in hex, for members' keys; without it they have none
    not_finite: Literal["stop", "skip"] = "stop"  # what a step's data do, when they are at fault
    by_owners: tuple[int, ...] = ()  # stages whose update is made by the parts' owners
    state_gradients: float = 3.0  # gradients' worth of bytes that parameters and moments take
    fingerprint: str = ""  # of all that decides the weights; peers compare it
    told: tuple[StepTold, ...] = ()  # the last steps of the incarnation before
    wiring: str = "iwrr"  # the policy
    local_from: int = MANY  # the first step in which replicas make steps of their own
    turns: int = 1  # rounds until every parameter was in one
    islands: int = 1  # at the most, that routes stay in
    every_s: float = 0.0  # seconds between two rounds; 0 for as many microbatches in each step
    least_microbatches: int = 1  # in a step, where those differ
    rearrange_s: float = 60.0  # between decisions on who serves what; 0 for none at all
    standby_share: float = 0.25  # of the peers, that hold a second state
    weights: tuple[float, ...] = ()  # of a microbatch at each stage; all alike where not told
    most_beacons_per_s: float = MOST_BEACONS_PER_S  # of all peers, that it handles

    @property
    def averages(self) -> bool:
        """Return whether replicas make steps of their own, from some step on."""
        return self.local_from < MANY

    @classmethod
    def of(
        cls,
        config: RunConfig,
        me: PeerId,
        epoch: int,
        *,
        needed: tuple[int, ...],
        start_version: int = 0,
        start_digests: tuple[str, ...] = (),
        resume: bool = False,
        secret: str = "",
        by_owners: tuple[int, ...] = (),
        state_gradients: float = 3.0,
        fingerprint: str = "",
        told: tuple[StepTold, ...] = (),
        turns: int = 1,
        weights: tuple[float, ...] = (),
        most_beacons_per_s: float = MOST_BEACONS_PER_S,
    ) -> TrainerSettings:
        return cls(
            me=me,
            seed=config.run.seed,
            epoch=epoch,
            start_version=start_version,
            steps=max(config.run.steps, start_version),
            microbatches=config.batch.microbatches,
            eval_every=config.evaluation.every_steps,
            eval_microbatches=config.evaluation.microbatches,
            checkpoint_every=config.checkpoint.every_steps,
            needed=needed,
            start_digests=start_digests,
            record_ttl_s=config.links.record_ttl_s,
            resume=resume,
            staleness=config.overlap,
            fresh_steps=config.fresh_steps,
            microbatch_tokens=config.batch.microbatch * config.model.sequence,
            least_loss=0.0 if config.model.kind == "decoder" else -math.inf,
            secret=secret,
            not_finite=config.optimizer.not_finite,
            by_owners=by_owners,
            state_gradients=state_gradients,
            fingerprint=fingerprint,
            told=told,
            wiring=config.wiring.policy,
            local_from=_local_from(config),
            turns=turns,
            islands=config.averaging.islands,
            every_s=config.averaging.every_s,
            least_microbatches=config.averaging.local_batch if config.averaging.every_s else 1,
            rearrange_s=config.rebalancing.period_s if config.rebalancing.enabled else 0.0,
            standby_share=config.rebalancing.standby_share,
            weights=weights,
            most_beacons_per_s=most_beacons_per_s,
        )


def _local_from(config: RunConfig) -> int:
    """Return the first step in which replicas make optimizer steps of their own, or give what their
    own momentum makes of gradients."""
    averaging = config.averaging
    return averaging.sync_steps if averaging.is_on or averaging.is_decoupled else MANY


AnySettings = PeerSettings | StewardSettings | TrainerSettings
