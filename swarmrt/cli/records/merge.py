"""The command `swarmrt merge`: one set of weights from several runs of one model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.options.devices import DEVICE, check_device
from swarmrt.cli.options.models import ALLOW_MODEL, MODEL_PATH
from swarmrt.cli.options.saying import JSON, say
from swarmrt.cli.process.signals import fail_on_signals
from swarmrt.cli.records.models import (
    HF,
    NOT_WRITTEN,
    OUT,
    check_outputs,
    load_weights,
    write_weights,
)
from swarmrt.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from swarmrt.model.merging import Member, Verdict

Row = dict[str, Any]  # what is told of a run


@fail_on_signals(NOT_WRITTEN)
def merge(
    run_dirs: list[Path] = typer.Argument(..., metavar="RUN_DIR RUN_DIR…"),
    out: Path | None = OUT,
    hf: Path | None = HF,
    validate: str | None = typer.Option(
        None,
        metavar="TEXT",
        help="A text to judge by, as data.source names one: runs that make its loss worse are left "
        "out.",
    ),
    sequences: int = typer.Option(512, min=1, help="Look at so many of its sequences at most."),
    weights: str | None = typer.Option(
        None, metavar="1,1,2", help="Weights of the runs; default: the samples they have trained."
    ),
    equal: bool = typer.Option(False, "--equal", help="Weigh all runs alike."),
    device: str = DEVICE,
    allow_model: list[str] = ALLOW_MODEL,
    model_path: list[Path] = MODEL_PATH,
    as_json: bool = JSON,
) -> None:
    """Write the mean of several runs' weights, each by its newest checkpoint. They have one model,
    and have begun with the same weights."""
    from swarmrt.model.builders import check_names, look_in
    from swarmrt.model.merging import check_one_model, merged

    check_outputs("merge", out, hf)
    if len(run_dirs) < 2:
        raise UsageError("merge needs two run folders at least; `swarmrt export` writes one run's")
    given = _given_weights(weights, equal, len(run_dirs))
    check_names(allow_model)
    look_in(model_path)
    members = [_load(run_dir, weight) for run_dir, weight in zip(run_dirs, given, strict=True)]
    check_one_model(members)
    _look_at_starts(members, validate, as_json)
    if validate is None:
        taken = members
        rows = [_row(member, members) for member in members]
    else:
        verdicts = _judged(members, validate, sequences, device, allow_model, as_json)
        taken = [verdict.member for verdict in verdicts if verdict.is_taken]
        rows = [_judged_row(verdict, taken) for verdict in verdicts]
    _show(rows, as_json)
    tensors = dict(merged(taken))
    write_weights(members[0].config, tensors, out, hf, _what(taken, members), as_json)
    if as_json:
        wrote = {"out": out and str(out), "hf": hf and str(hf)}
        print(json.dumps({"runs": rows, "validate": validate, **wrote}))


# ---------------------------------------------------------------------- members


def _given_weights(weights: str | None, equal: bool, count: int) -> Sequence[float | None]:
    """Return one weight a run, which is None where it follows from samples. Raises UsageError."""
    if equal:
        if weights is not None:
            raise UsageError("--weights and --equal exclude each other: give one of them")
        return [1.0] * count
    if weights is None:
        return [None] * count
    try:
        given = [float(one) for one in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights {weights!r}: write numbers, for example 1,1,2") from None
    if len(given) != count:
        raise UsageError(f"--weights {weights!r}: has {len(given)} numbers for {count} runs")
    if not all(0 < one < math.inf for one in given):
        raise UsageError(f"--weights {weights!r}: each must be a number above 0")
    return given


def _load(run_dir: Path, weight: float | None) -> Member:
    """Return a run by its newest checkpoint, weighted by its samples if nothing else is given.
    Raises CheckpointError."""
    from swarmrt.model.merging import Member

    config, tensors, step = load_weights(run_dir)
    member = Member(str(run_dir), config, step, tensors)
    if weight is None and not member.samples:
        raise CheckpointError(
            f"{run_dir}: its checkpoint is of step 0, so that it weighs nothing; leave it out, or "
            "pass --equal or --weights"
        )
    return replace(member, weight=member.samples if weight is None else weight)


def _look_at_starts(members: Sequence[Member], validate: str | None, as_json: bool) -> None:
    """Refuse runs that have not begun as the first one, unless a text will tell. Raises
    CheckpointError."""
    from swarmrt.model.merging import other_starts

    for found in other_starts(members):
        if validate is None:
            raise CheckpointError(
                f"{found}; the mean of such runs is worse than each of them, as a rule. Leave it "
                "out, or pass --validate TEXT, so that it is taken only if it does no harm"
            )
        say(f"note: {found}", as_json)


def _judged(
    members: Sequence[Member],
    text: str,
    sequences: int,
    device: str,
    allowed: Sequence[str],
    as_json: bool,
) -> list[Verdict]:
    """Return what the text says of each run, the best first."""
    from swarmrt.model.builders import check_consent
    from swarmrt.model.evaluation import HeldOut, open_unseen
    from swarmrt.model.merging import choose_greedily, merged
    from swarmrt.model.repeatable import compute_repeatably

    first = members[0]
    check_consent(first.config, allowed, f"the checkpoint in {first.name}")
    check_device(device)
    compute_repeatably(first.config, device)
    data = open_unseen(text, [member.config for member in members])
    held_out = HeldOut(first.config, first.tensors, data, sequences, device)
    say(f"{data.description}: looking at {held_out.sequences} sequences of it", as_json)
    return choose_greedily(members, lambda chosen: held_out.loss(merged(chosen)))


# ---------------------------------------------------------------------- what is said


def _row(member: Member, taken: Sequence[Member]) -> Row:
    share = member.weight / sum(one.weight for one in taken) if member in taken else 0.0
    return {
        "run": member.name,
        "step": member.step,
        "samples": member.samples,
        "share": share,
        "taken": member in taken,
    }


def _judged_row(verdict: Verdict, taken: Sequence[Member]) -> Row:
    """Return a row with the run's own loss, that of the merge with it, and by how much it makes the
    merge worse. What is not finite is None."""
    losses = {"loss": verdict.alone, "merged_loss": verdict.together, "worse_by": verdict.worse_by}
    is_finite = {k: x if x is not None and math.isfinite(x) else None for k, x in losses.items()}
    return _row(verdict.member, taken) | is_finite


def _show(rows: Sequence[Row], as_json: bool) -> None:
    """Print a table, with losses where there is a text to judge by."""
    width = max(len("run"), *(len(row["run"]) for row in rows))
    is_judged = "loss" in rows[0]
    losses = f" {'loss':>8} {'merged':>8}" if is_judged else ""
    say(f"{'run':{width}} {'step':>8} {'samples':>12}{losses} {'share':>6}", as_json)
    for row in rows:
        losses = f" {_figure(row['loss'])} {_figure(row['merged_loss'])}" if is_judged else ""
        left = f"{row['run']:{width}} {row['step']:>8} {row['samples']:>12,}"
        say(f"{left}{losses} {row['share']:>6.1%}{_refusal(row)}", as_json)


def _figure(loss: float | None) -> str:
    return f"{'-':>8}" if loss is None else f"{loss:>8.4f}"


def _refusal(row: Row) -> str:
    if row["taken"]:
        return ""
    if row["worse_by"] is None:
        return "  refused: its loss, or that of the merge, is not finite"
    return f"  refused: the merge would be worse by {row['worse_by']:.2g}"


def _what(taken: Sequence[Member], members: Sequence[Member]) -> str:
    if len(taken) == 1:
        return f"the weights of {taken[0].name} alone: any other run makes them worse"
    return f"the mean of the weights of {len(taken)} of {len(members)} runs"
