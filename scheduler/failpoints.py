"""The names of failpoints: before and after each act that is durable or moves ownership.

A point is passed before or after its instruction is carried out, in either world, so that there is
one place for all of them.
"""

from __future__ import annotations

from typing import Literal

from swarmrt.messages import (
    Accumulated,
    Admit,
    Applied,
    Apply,
    Backward,
    Claim,
    Drain,
    Forward,
    GiveUp,
    Granted,
    Leaving,
    Message,
    Offer,
    Part,
    Prepare,
    Prepared,
    Ready,
    Recover,
    Released,
    Standing,
    Take,
    Update,
    Updated,
)
from swarmrt.scheduler.instructions import (
    Announce,
    CloseSeat,
    Contribute,
    FreeDevice,
    Instruction,
    LoadState,
    OpenSeat,
    RaiseEpoch,
    ReportMove,
    RunBackward,
    RunWeightGradients,
    SaveCheckpoint,
    Send,
    StepOptimizer,
)

Role = Literal["peer", "trainer"]

_SENDS: dict[Role, dict[type[Message], str]] = {
    "peer": {
        Ready: "join.{}_ready",
        Forward: "forward.{}_push",
        Claim: "claim.{}_send",
        Backward: "backward.{}_push",
        Accumulated: "accumulate.{}_receipt",
        Released: "release.{}_send",
        Part: "reduce.{}_part",
        Prepared: "prepare.{}_prepared",
        Updated: "update.{}_updated",
        Applied: "apply.{}_applied",
        Leaving: "leave.{}_send",
        Offer: "move.{}_offer",
    },
    "trainer": {
        Admit: "admit.{}_send",
        Forward: "dispatch.{}_send",
        Granted: "claim.{}_grant",
        Recover: "recover.{}_send",
        Standing: "standing.{}_send",
        Prepare: "prepare.{}_send",
        Update: "update.{}_send",
        Apply: "apply.{}_send",
        Take: "move.{}_take",
        GiveUp: "move.{}_give_up",
        Drain: "move.{}_drain",
    },
}
_ACTS: dict[Role, dict[type[Instruction], str]] = {
    "peer": {
        LoadState: "join.{}_load",
        RunBackward: "accumulate.{}_start",
        RunWeightGradients: "accumulate.{}_weights",
        Contribute: "reduce.{}_contribute",
        StepOptimizer: "apply.{}_start",
        Announce: "announce.{}",
        OpenSeat: "move.{}_open",
        CloseSeat: "move.{}_close",
        FreeDevice: "pause.{}_free",
    },
    "trainer": {
        SaveCheckpoint: "checkpoint.{}_start",
        RaiseEpoch: "epoch.{}_raise",
        ReportMove: "move.{}_decide",
    },
}
_DURABLE = (  # inside of acts, where the code names them
    "trainer.checkpoint.before_rename",
    "trainer.checkpoint.after_rename",
    "trainer.epoch.before_write",
    "trainer.epoch.after_write",
)


def all_points() -> list[str]:
    """Every name, sorted."""
    names = set(_DURABLE)
    for role in ("peer", "trainer"):
        for table in (_SENDS[role], _ACTS[role]):
            for act in table.values():
                names |= {f"{role}.{act.format(when)}" for when in ("before", "after")}
    return sorted(names)


def point_of(role: Role, instruction: Instruction, when: str) -> str:
    """The point that is passed by carrying this out; empty for none."""
    if isinstance(instruction, Send):
        act = _SENDS[role].get(type(instruction.message))
    else:
        act = _ACTS[role].get(type(instruction))
    return f"{role}.{act.format(when)}" if act else ""
