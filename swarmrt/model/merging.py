"""The merge of several runs of one model: which ones fit, the mean of their weights, whom to take.

The mean of weights that have come from one start is often better than each of them (federated
averaging: McMahan et al. 2017; model soups: Wortsman et al. 2022). Of unlike starts it is not: loss
rises on the way from one to the other (Frankle et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarmrt.config import Model, RunConfig
from swarmrt.errors import CheckpointError
from swarmrt.run_identity import PINNED, value_at

ONLY_IN_TRAINING = {"dropout", "recompute", "split_backward"}
ONE_MODEL = [f"model.{name}" for name in Model.model_fields if name not in ONLY_IN_TRAINING]
ONE_START = ("run.seed", "run.swarmrt", "data.tokenizer")


@dataclass(frozen=True, eq=False)
class Member:
    """A run that may be merged."""

    name: str
    config: RunConfig
    step: int  # updates applied
    tensors: Mapping[str, Tensor]  # by their names in the whole model
    weight: float = 1.0

    @property
    def samples(self) -> int:
        """Return how many sequences it was trained on, by the batch that it has now."""
        return self.step * self.config.batch.microbatches * self.config.batch.microbatch


# ---------------------------------------------------------------------- what fits


def check_one_model(members: Sequence[Member]) -> None:
    """Check that all are runs of the first one's model. Raises CheckpointError naming the first
    that is not, and what differs."""
    first = members[0]
    for member in members[1:]:
        found = _differences(first, member, ONE_MODEL) or _other_tensors(first, member)
        if found:
            raise CheckpointError(
                f"{member.name} has another model than {first.name}: {'; '.join(found)}; only runs "
                "of one model can be merged"
            )


def other_starts(members: Sequence[Member]) -> list[str]:
    """Return in words who has not begun with the first one's weights, or reads text otherwise."""
    first = members[0]
    return [
        f"{member.name} has another start than {first.name}: {'; '.join(found)}"
        for member in members[1:]
        if (found := _differences(first, member, ONE_START))
    ]


def _differences(first: Member, other: Member, keys: Sequence[str]) -> list[str]:
    pairs = {key: (value_at(first.config, key), value_at(other.config, key)) for key in keys}
    return [
        f"{key} is {its!r}, and {the_firsts!r} there"
        for key, (the_firsts, its) in pairs.items()
        if its != the_firsts and not (key in PINNED and None in (its, the_firsts))
    ]


def _other_tensors(first: Member, other: Member) -> list[str]:
    """Return the first tensor that only one of them has, or has so, in words; at most one."""
    for name in sorted(first.tensors.keys() | other.tensors.keys()):
        here, there = other.tensors.get(name), first.tensors.get(name)
        if here is None or there is None:
            return [f"it has {'no' if here is None else 'a'} {name}"]
        if (here.shape, here.dtype) != (there.shape, there.dtype):
            return [f"{name} is {_form(here)}, and {_form(there)} there"]
    return []


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


# ---------------------------------------------------------------------- the mean


def merged(members: Sequence[Member]) -> Iterator[tuple[str, Tensor]]:
    """Return the mean of members of one model, one tensor after the other, by their weights.

    Nothing but the tensor that is made is in memory. Raises CheckpointError when there is no mean.
    """
    return ((name, _mean(name, members)) for name in members[0].tensors)


def _mean(name: str, members: Sequence[Member]) -> Tensor:
    """Return the mean of a tensor, to the bit what all have where they have the same.

    The running mean moves by each member's distance from it, in float64 (West 1979).
    """
    first = members[0].tensors[name]
    if all(torch.equal(first, member.tensors[name]) for member in members[1:]):
        return first
    if not first.is_floating_point():
        raise CheckpointError(
            f"{name} is of {first.dtype}, and not the same in all runs; it has no mean"
        )
    mean, weight = first.to(torch.float64, copy=True), 0.0
    for member in members:
        values = member.tensors[name]
        if not values.isfinite().all():
            raise CheckpointError(
                f"{member.name}: {name} has values that are not finite; leave this run out"
            )
        weight += member.weight
        mean.sub_(mean - values, alpha=member.weight / weight)
    return mean.to(first.dtype)


# ---------------------------------------------------------------------- whom to take


@dataclass(frozen=True)
class Verdict:
    """The judgement of a member, by its held-out loss and that of the merge with it."""

    member: Member
    alone: float
    before: float | None = None  # of the merge of those that were taken before it
    together: float | None = None  # of the merge of it with those

    @property
    def worse_by(self) -> float | None:
        """Return how much it makes the merge worse; None where there is no such merge."""
        if self.before is None or self.together is None:
            return None
        return self.together - self.before

    @property
    def is_taken(self) -> bool:
        """Return whether it is the first one, or makes the merge no worse."""
        if self.before is None:
            return True
        return self.together is not None and self.together <= self.before


def choose_greedily(
    members: Sequence[Member], loss_of: Callable[[Sequence[Member]], float]
) -> list[Verdict]:
    """Judge all members, the best first: each is taken unless it makes the merge worse (the greedy
    soup, recipe 1 of Wortsman et al. 2022, "Model soups").

    Raises CheckpointError when no member's loss is finite.
    """
    alone = [(loss_of([member]), member) for member in members]
    alone.sort(key=lambda one: one[0] if math.isfinite(one[0]) else math.inf)
    best, first = alone[0]
    if not math.isfinite(best):
        raise CheckpointError("no run has a finite loss on this text; there is nothing to merge")
    verdicts, taken = [Verdict(first, best)], [first]
    for its, member in alone[1:]:
        if not math.isfinite(its):
            verdicts.append(Verdict(member, its, best))
            continue
        together = loss_of([*taken, member])
        verdicts.append(Verdict(member, its, best, together))
        if verdicts[-1].is_taken:
            taken.append(member)
            best = together
    return verdicts
