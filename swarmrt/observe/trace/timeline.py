"""The records of one process as spans in rows: computing, queueing, sending, reducing, steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmrt.ids import MicrobatchId
from swarmrt.messages import (
    Accepted,
    Apply,
    Backward,
    Beacon,
    Busy,
    Forward,
    GetFrame,
    Granted,
    Message,
    NoFrame,
    Part,
    Prepare,
    Recover,
    Refused,
    Stale,
)
from swarmrt.observe.trace.deliveries import Delivery
from swarmrt.observe.trace.rows import Rows
from swarmrt.recorded import KIND, Recorded
from swarmrt.scheduler.events import (
    BackwardDone,
    CheckpointFailed,
    CheckpointSaved,
    ComputeFailed,
    Contributed,
    Event,
    ForwardDone,
    GradientCombined,
    PartSummed,
    PartUnfit,
    PeerLost,
    Received,
    SendFailed,
    StateLoaded,
    StateUnavailable,
    Stepped,
    StopRequested,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    CombineParts,
    Contribute,
    DropRound,
    Forget,
    Instruction,
    KeepGradient,
    KeepInput,
    LoadState,
    RaiseEpoch,
    ReportCheckpointFailed,
    ReportEvaluation,
    ReportHandOver,
    ReportIslands,
    ReportPause,
    ReportRecovery,
    ReportRollback,
    ReportStep,
    RunBackward,
    RunForward,
    RunWeightGradients,
    SaveCheckpoint,
    Send,
    StepOptimizer,
    Stop,
    SumPart,
)
from swarmrt.scheduler.recording import Record, to_plain

Plain = dict[str, Any]
Sent = Callable[[str], Delivery | None]  # to whom → what became of the next message
Got = Callable[[str], int | None]  # from whom → number of the next message
Arrival = Callable[[Delivery], int]  # microseconds of the common clock

REPORTS: dict[type[Recorded], str] = {
    ReportRecovery: "recovery",
    ReportRollback: "rollback",
    ReportPause: "pause",
    ReportHandOver: "hand-over",
    ReportIslands: "islands",
    ReportCheckpointFailed: "checkpoint failed",
    ClearGradients: "gradients are void",
    Announce: "announced",
    RaiseEpoch: "epoch raised",
    Stop: "stopped",
}
HAPPENINGS: dict[type[Recorded], str] = {
    ComputeFailed: "computation failed",
    PartUnfit: "part unfit",
    PeerLost: "peer lost",
    SendFailed: "send failed",
    StopRequested: "stop requested",
    CheckpointFailed: "checkpoint failed",
    StateUnavailable: "state unavailable",
}


class Timeline:
    """Feed it the records of one incarnation in order, then `end`."""

    def __init__(
        self, rows: Rows, is_trainer: bool, sent: Sent, got: Got, arrival: Arrival
    ) -> None:
        self.rows, self._is_trainer = rows, is_trainer
        self._sent, self._got, self._arrival = sent, got, arrival
        self._asked: dict[tuple[Any, ...], int] = {}  # computation → when it was asked for
        self._frame_bytes: dict[tuple[str, str], int] = {}  # of what is sent on
        self._began_backward: set[str] = set()  # in this step
        self._newest_round = self._newest_apply = -1
        self._now = 0
        self._ran_at = {"compute": 0, "add": 0}  # when the last thing in the row was over

    def add(self, record: Record, now: int) -> None:
        """Add a record; `now` in microseconds of the common clock."""
        self._now = now
        kept = any(isinstance(i, KeepInput | KeepGradient) for i in record.instructions)
        self._happened(record.event, kept)
        for instruction in record.instructions:
            self._told(instruction)

    def end(self) -> None:
        """The log is over: what is open stays without its end."""
        for key in self.rows.open_keys():
            self.rows.close(key, self._now, unfinished=True)

    # ------------------------------------------------------------------ what happened

    def _happened(self, event: Event, kept: bool) -> None:
        rows, now = self.rows, self._now
        match event:
            case Received(sender=sender, message=message):
                self._received(sender, message, self._got(sender), kept)
            case ForwardDone():
                self._computed("forward", event, tokens=event.tokens)
            case BackwardDone():
                self._computed("backward", event)
            case WeightGradientsDone(microbatch=mb, seconds=seconds):
                self._ran_for("weights", mb, seconds)
            case Contributed(step=step, round=number):
                key, name = ("contribute", number), "fix contribution"
                self._ran(key, "compute", name, step=step, round=short(number))
            case PartSummed(round=number, index=index):
                self._ran(("sum", number, index), "add", f"sum part {index}", round=short(number))
            case GradientCombined(step=step, round=number):
                self._ran(
                    ("combine", number), "add", "combine parts", step=step, round=short(number)
                )
                rows.close(("reduce", number), now)
                rows.open("reduce", ("held", number), "prepared", now, step=step)
            case Stepped(version=version):
                self._ran(("optimizer",), "compute", "optimizer", version=version)
                rows.close(("update",), now)
                self._began_backward = {n for n in self._began_backward if step_of(n) >= version}
            case StateLoaded() | StateUnavailable():
                rows.close(("load",), now, outcome=type(event).__name__)
            case CheckpointSaved(version=version) | CheckpointFailed(version=version):
                rows.close(("checkpoint", version), now, outcome=type(event).__name__)
            case PeerLost(peer=peer):
                self._close_pushes_to(peer, "the peer was lost")
            case SendFailed(to=to, message=Forward(work=work)):
                rows.close(("push", to, str(work.microbatch)), now, outcome="send failed")
        what = HAPPENINGS.get(type(event))
        if what is not None:
            rows.instant(what, now, **_fields(event))

    def _received(self, sender: str, message: Message, number: int | None, kept: bool) -> None:
        rows, now = self.rows, self._now
        match message:
            case Forward(work=(mb, attempt)):
                rows.close(("get", str(mb), "output"), now, outcome="came")
                self._frame_came("forward", mb, number, kept, attempt=attempt)
            case Backward(microbatch=mb):
                rows.close(("get", str(mb), "gradient"), now, outcome="came")
                self._frame_came("backward", mb, number, kept)
            case Recover(microbatch=mb) if kept:
                self._frame_came("forward", mb, None, kept, recovery=True)
            case Granted(microbatch=mb) if str(mb) not in self._began_backward:
                rows.open("queue", ("backward", str(mb)), f"backward {mb}", now, **of(mb))
            case NoFrame(microbatch=mb, kind=kind):
                rows.close(("get", str(mb), kind), now, outcome="it is not retained")
            case Accepted(work=(mb, _)) | Busy(work=(mb, _)) | Stale(work=(mb, _)):
                rows.close(("push", sender, str(mb)), now, outcome=type(message).__name__)
            case Prepare(step=step, round=number):
                key = ("reduce", number)
                if number > self._newest_round:
                    self._newest_round = number
                    rows.open("reduce", key, "reduce", now, step=step, round=short(number))

    def _frame_came(
        self, what: str, mb: MicrobatchId, number: int | None, kept: bool, **args: Any
    ) -> None:
        """Begin a frame's wait to be computed, if it is needed."""
        rows, now, name = self.rows, self._now, f"{what} {mb}"
        if kept:
            thread = rows.open("queue", (what, str(mb)), name, now, **of(mb), **args)
        else:
            thread = rows.brief("queue", f"{name} not taken", now, now, **of(mb), **args)
        if number is not None:
            rows.arrow(number, thread, now, begins=False)

    def _computed(self, what: str, event: ForwardDone | BackwardDone, **args: Any) -> None:
        mb, size = event.microbatch, event.frame_bytes
        self._ran_for(what, mb, event.seconds, frame_bytes=size, **args)
        self._frame_bytes[what, str(mb)] = size

    def _ran_for(self, what: str, mb: MicrobatchId, seconds: float, **args: Any) -> None:
        """Draw what ran for as long as it measured itself; never from before it was asked for."""
        asked = self._asked.pop((what, str(mb)), 0)
        start = max(asked, self._ran_at["compute"], self._now - round(seconds * 1e6))
        args |= {"seconds": seconds}
        self.rows.span("compute", f"{what} {mb}", start, self._now, **of(mb), **args)
        self._ran_at["compute"] = self._now

    def _ran(self, key: tuple[Any, ...], row: str, name: str, **args: Any) -> None:
        """Draw what ran on one of the two threads, which do one thing after the other."""
        asked = self._asked.pop(key, None)
        if asked is not None:
            self.rows.span(row, name, max(asked, self._ran_at[row]), self._now, **args)
            self._ran_at[row] = self._now

    # ------------------------------------------------------------------ what it was told to do

    def _told(self, instruction: Instruction) -> None:
        rows, now = self.rows, self._now
        match instruction:
            case Send(to=to, message=message):
                self._send(to, message, self._sent(to))
            case RunForward(microbatch=mb):
                self._run("forward", mb)
            case RunBackward(microbatch=mb):
                self._began_backward.add(str(mb))
                self._run("backward", mb)
            case RunWeightGradients(microbatch=mb):
                self._run("weights", mb)
            case Forget(microbatch=mb):
                self._forget(str(mb))
            case Contribute(round=number):
                self._asked["contribute", number] = now
            case SumPart(round=number, index=index):
                self._asked["sum", number, index] = now
            case CombineParts(round=number):
                self._asked["combine", number] = now
            case DropRound(round=number):
                self._round_is_over(number, "void")
            case StepOptimizer(step=step, round=number):
                self._asked["optimizer",] = now
                self._round_is_over(number, "applied")
                rows.open("reduce", ("update",), "update", now, step=step, round=short(number))
            case LoadState(version=version, donors=donors):
                rows.open("state", ("load",), f"load version {version}", now, donors=donors)
            case SaveCheckpoint(version=version):
                name = f"checkpoint {version}"
                rows.open("checkpoint", ("checkpoint", version), name, now, version=version)
            case ReportStep(version=version, loss=loss, tokens=tokens, norm=norm):
                rows.close(("commit", version), now, loss=loss, tokens=tokens, norm=norm)
                self._close_pushes_before(version)
            case ReportEvaluation(version=version, loss=loss):
                rows.close(("evaluation", version), now, loss=loss)
            case ReportRecovery(what="void round"):
                self._rounds_are_void()
            case ReportRollback():
                for key in rows.open_keys():
                    rows.close(key, now, outcome="rolled back")
        what = REPORTS.get(type(instruction))
        if what is not None:
            fields = _fields(instruction)
            what = f"{what}: {fields['what']}" if "what" in fields else what
            rows.instant(what, now, **fields)

    def _send(self, to: str, message: Message, delivery: Delivery | None) -> None:
        rows, now = self.rows, self._now
        match message:
            case Forward(work=(mb, attempt)):
                self._step_begins(mb)
                size = self._frame_bytes.get(("forward", str(mb)))
                known = {} if size is None else {"bytes": size}
                args = {**of(mb), "to": to, "attempt": attempt, **known}
                key = ("push", to, str(mb))
                thread = rows.open("send", key, f"push {mb}", now, **args)
                if delivery is not None:
                    rows.arrow(delivery.number, thread, now, begins=True)
            case Backward(microbatch=mb) if delivery is not None:
                size = self._frame_bytes.get(("backward", str(mb)), 0)
                args = {**of(mb), "to": to, "bytes": size}
                end = self._arrival(delivery)
                thread = rows.brief("send", f"gradient {mb}", now, end, **args)
                rows.arrow(delivery.number, thread, now, begins=True)
            case Part(step=step, round=number, index=index) if delivery is not None:
                what = "update of " if message.updated else "sum of " if message.summed else ""
                name = f"{what}part {index}"
                args = {"to": to, "step": step, "round": short(number)}
                rows.brief("send", name, now, self._arrival(delivery), **args)
            case GetFrame(microbatch=mb, kind=kind):
                name = f"get {kind} {mb}"
                args = {**of(mb), "from": to}
                rows.open("wait", ("get", str(mb), kind), name, now, **args)
            case Prepare(step=step, round=number):
                if number > self._newest_round:
                    self._newest_round = number
                    args = {"step": step, "round": short(number)}
                    rows.open("rounds", ("round", number), f"prepare {step}", now, **args)
            case Apply(step=step, round=number, norm=norm):
                rows.close(("round", number), now, outcome="prepared")
                if number > self._newest_apply:
                    self._newest_apply = number
                    rows.close(("step", step), now)
                    args = {"step": step, "round": short(number), "norm": norm}
                    rows.open("rounds", ("commit", step + 1), f"commit {step}", now, **args)
            case Refused(round=number, reason=reason):
                self._round_is_over(number, reason)
            case Beacon(queued=queued):
                rows.counter("queued", now, queued)

    def _step_begins(self, mb: MicrobatchId) -> None:
        """Begin a step at the trainer, whose first forward of it this may be. Apply ends it."""
        if not self._is_trainer:
            return
        step, _, held_out = mb
        what, row = ("evaluation", "evaluation") if held_out else ("step", "steps")
        if not self.rows.is_open((what, step)):
            self.rows.open(row, (what, step), f"{what} {step}", self._now, step=step)

    def _run(self, what: str, mb: MicrobatchId) -> None:
        self._asked[what, str(mb)] = self._now
        self.rows.close((what, str(mb)), self._now)

    def _forget(self, name: str) -> None:
        for key in self.rows.open_keys():
            if name in key:
                self.rows.close(key, self._now, outcome="forgotten")
        self._began_backward.discard(name)
        self._frame_bytes.pop(("forward", name), None)
        self._frame_bytes.pop(("backward", name), None)

    def _close_pushes_to(self, peer: str, outcome: str) -> None:
        for key in self.rows.open_keys():
            if key[:2] == ("push", peer):
                self.rows.close(key, self._now, outcome=outcome)

    def _close_pushes_before(self, version: int) -> None:
        for key in self.rows.open_keys():
            if key[0] == "push" and step_of(key[2]) < version:
                self.rows.close(key, self._now, outcome="not answered")

    def _round_is_over(self, number: int, outcome: str) -> None:
        self.rows.close(("reduce", number), self._now, outcome=outcome)
        self.rows.close(("held", number), self._now, outcome=outcome)

    def _rounds_are_void(self) -> None:
        for key in self.rows.open_keys():
            if key[0] == "round":
                self.rows.close(key, self._now, outcome="void")


def _fields(value: Recorded) -> Plain:
    """Return what a value holds, as plain values; what a message says is shown elsewhere."""
    return {k: v for k, v in to_plain(value).items() if k not in (KIND, "message")}


def step_of(name: str) -> int:
    """Return the step of a microbatch as `named` has it."""
    return int(name.lstrip("e").split(".")[0])


def of(mb: MicrobatchId) -> Plain:
    return {"microbatch": str(mb), "step": mb.step}


def short(number: int) -> int:
    """A round's number within its trainer's epoch."""
    return number & 0xFFFFFFFF
