"""The cost of averaging in quality at equal tokens: curves over the interval, and what moves them.

    .venv/bin/python scripts/bench_averaging.py [--only r4] [--seeds 0 1] [--out averaging.json]

Trains a tiny byte model (3 stages of a block, 0.1 million parameters) on the sources of Python's
standard library. The replicas of all stages share this process; stages, strategies and codec are
the real ones. Each microbatch takes a random replica at each stage, as many each, and goes back the
way that it came. A row is trained for each seed, and printed as it comes; one that the file has
already is not trained again. --plot draws what the file has.

An interval of m means a round after every m times the sequences of a synchronous step, in which
a replica makes m steps of its own. With a delay a microbatch is at each stage so much later than at
the one before, on its way back as well, and the time is what one comes to the first stage in: then
replicas have microbatches between forward and backward, and own steps are as long as these ask for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swarmrt.config import DEMO, RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import Data, open_data
from swarmrt.ids import MicrobatchId
from swarmrt.model.optimizer import clip_scale
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.model.weights import LocalReport
from swarmrt.runtime.peer.parts import part_range
from swarmrt.runtime.peer.payloads import payload_of
from swarmrt.scheduler.peer.updating.averaging.own_steps import Between, own_step

STEPS = 600  # synchronous ones
STAGES = 3
SEQUENCES = 2  # in a microbatch
MICROBATCHES = 4  # in a synchronous step
HELD_OUT = 64  # microbatches of an evaluation
WARMUP = 20  # synchronous steps
TOLD = ("drift", "late_fraction", "steps")  # of what replicas did by themselves


@dataclass(frozen=True)
class Row:
    """A way to train."""

    replicas: int = 1
    every: int = 1  # synchronous steps' worth of data between two rounds
    strategy: str = "async"
    settings: tuple[tuple[str, Any], ...] = ()  # of averaging
    rate: float = 1.0  # times the tuned one
    islands: bool = False  # replica i of a stage works with replica i of the others
    late: int = 0  # own steps of the next interval before a round's result is there
    delay: int = 0  # from stage to stage, in microbatches
    stages: int = STAGES
    missing: int = 0  # one of so many members misses each round
    precision: str = "model"


def _rows() -> dict[str, Row]:
    rows = {f"sync-x{rate:g}": Row(strategy="sync", rate=rate) for rate in (1.0, 0.5, 2.0)}
    rows["r1-m1"] = Row(1, 1)
    for replicas in (2, 4):
        for every in (1, 5, 20):
            rows[f"r{replicas}-m{every}"] = Row(replicas, every)
        rows[f"r{replicas}-never"] = Row(replicas, 20, "lofi")
    base, rare = rows["r4-m5"], rows["r4-m20"]
    rows |= {
        "r4-m5-int8": replace(base, precision="int8"),
        "r4-m5-islands": replace(base, islands=True),
        "r4-m5-late1": replace(base, late=1),
        "r4-m5-missing": replace(base, missing=4),
        "r4-m1-sparta20": _with(replace(base, every=1), "sparta", share=0.2),
        "r4-m1-sparta5": _with(replace(base, every=1), "sparta", share=0.05),
        "r4-m20-diloco-0.7-0.9": _with(rare, "diloco", outer_lr=0.7, outer_momentum=0.9),
        "r4-m20-diloco-1-0.3": _with(rare, "diloco", outer_lr=1.0, outer_momentum=0.3),
        "r4-m20-diloco-0.8-0.2": _with(rare, "diloco", outer_lr=0.8, outer_momentum=0.2),
        "r4-m5-diloco-1-0.3": _with(base, "diloco", outer_lr=1.0, outer_momentum=0.3),
        "r4-m5-stream4-1-0.3": _with(
            base, "diloco", ranges=4, outer_lr=1.0, outer_momentum=0.3, alpha=0.5
        ),
        "r4-m50": Row(4, 50),
        "r2-m50": Row(2, 50),
        "r4-m10": Row(4, 10),
        "r4-m5-x2": replace(base, rate=2.0),
        "r4-m1-x2": replace(base, every=1, rate=2.0),
        "r4-m20-x2": replace(rare, rate=2.0),
        "r2-m1-x1.4": Row(2, 1, rate=1.4),
        "r2-m5-x1.4": Row(2, 5, rate=1.4),
        "r2-m20-x1.4": Row(2, 20, rate=1.4),
        "r4-m20-late1": replace(rare, late=1),
    }
    far = Row(2, 20, delay=2)
    rows |= {"r2-m20-far": far, "r2-m20-far-tenth": _with(far, "async", most_late=0.1)}
    for stages in (8, 16):
        deep, name = replace(far, stages=stages), f"deep{stages}"
        rows |= {f"{name}:sync-x1": Row(strategy="sync", stages=stages), f"{name}:r2-m20": deep}
        rows[f"{name}:r2-m20-tenth"] = _with(deep, "async", most_late=0.1)
    for replicas, beta, rate in (
        (4, 0.999, 0.25), (4, 0.999, 0.125), (4, 0.999, 0.5), (4, 0.99, 0.25),
        (4, 0.99, 0.125), (4, 0.95, 0.125), (2, 0.999, 0.25),
    ):  # fmt: skip
        name = f"r{replicas}-demo-{beta}-x{rate:g}"
        rows[name] = _with(Row(replicas, rate=rate, precision="int8"), DEMO, beta=beta)
    return rows


def _with(row: Row, strategy: str, **settings: float) -> Row:
    return replace(row, strategy=strategy, settings=tuple(settings.items()))


ROWS = _rows()


# ---------------------------------------------------------------------- one way to train


def config_of(row: Row, seed: int, lr: float) -> RunConfig:
    whole = {"layers": row.stages, "width": 48, "heads": 4, "kv_heads": 4, "sequence": 64}
    averaging: dict[str, Any] = {"strategy": row.strategy, "precision": row.precision}
    averaging |= {"local_batch": MICROBATCHES // row.replicas, "most_late": 1.0}
    averaging |= dict(row.settings)
    by_signs = {"kind": "sgd", "clip_norm": 0.0} if row.strategy == DEMO else {}
    return parse_config(
        {
            "run": {"seed": seed, "steps": STEPS // row.every},
            "model": whole,
            "stages": {"layers": [1] * row.stages},
            "batch": {"microbatch": SEQUENCES, "microbatches": MICROBATCHES * row.every},
            "optimizer": {
                "lr": lr * row.rate,
                "warmup_steps": max(1, WARMUP // row.every),
                **by_signs,
            },
            "averaging": averaging,
        },
        "bench",
    )


class Replica:
    """A replica of a stage, with what its core knows of it."""

    def __init__(self, config: RunConfig, stage: int) -> None:
        self.stage = Stage(config, stage)
        self._config = config
        self._forwarded: dict[MicrobatchId, Forwarded] = {}
        self._added: Counter[int] = Counter()  # by step
        self._between = Between()

    def forward(self, microbatch: MicrobatchId, value: Tensor, targets: Tensor) -> Tensor | None:
        forwarded = self._forwarded[microbatch] = _forward(self.stage, microbatch, value, targets)
        return forwarded.output

    def backward(self, microbatch: MicrobatchId, grad: Tensor | None) -> Tensor | None:
        forwarded, averaging = self._forwarded.pop(microbatch), self._config.averaging
        self._added[microbatch.step] += 1
        between = self._between.seen(len(self._forwarded))
        told = (between, self._added[microbatch.step], microbatch.index + 1)
        how = (averaging.local_batch, averaging.most_late)
        self.stage.size_own_steps(own_step(*how, *told, self._config.batch.microbatches))
        return self.stage.backward(forwarded, grad)


class Passing:
    """A microbatch on its way through the stages, forth and back."""

    def __init__(self, microbatch: MicrobatchId, route: tuple[Replica, ...], data: Data) -> None:
        self._microbatch, self._route = microbatch, route
        self._ahead = [*range(len(route)), *reversed(range(len(route)))]
        value, self._targets = map(torch.from_numpy, data.microbatch(microbatch))
        self._value: Tensor | None = value

    def go_on(self) -> bool:
        """Compute at the next stage. Return whether it is back at the first one."""
        is_forward = len(self._ahead) > len(self._route)
        replica = self._route[self._ahead.pop(0)]
        if is_forward:
            assert self._value is not None
            self._value = replica.forward(self._microbatch, self._value, self._targets)
        else:
            self._value = replica.backward(self._microbatch, self._value)
        return not self._ahead


class Swarm:
    """The replicas of all stages, and the ways through them."""

    def __init__(self, row: Row, config: RunConfig, data: Data) -> None:
        self.row, self.config, self.data = row, config, data
        self.rng = random.Random(config.run.seed)
        self.stages = [
            [Replica(config, index) for _ in range(row.replicas)] for index in range(row.stages)
        ]
        self._payload = payload_of(config)
        self._routes: Iterator[tuple[Replica, ...]] = iter(())
        self._passing: dict[MicrobatchId, Passing] = {}
        self._contributed: list[list[Stage]] = []  # who takes part in a round, by stage

    def train(self) -> dict[str, float]:
        """Train to the end, and return what has come of it."""
        reports: list[LocalReport] = []
        for _, _, happening, microbatch in sorted(self._happenings()):
            match happening:
                case "contribute":
                    self._contribute(microbatch.step)
                case "merge":
                    self._merge(microbatch.step)
                    reports += [r.stage.local_report() for stage in self.stages for r in stage]
                case _:
                    self._pass(microbatch)
        told = {name: [getattr(report, name) for report in reports] for name in TOLD}
        return {"loss": self.loss()} | {name: statistics.mean(of) for name, of in told.items()}

    def _happenings(self) -> Iterator[tuple[int, int, str, MicrobatchId]]:
        """Return what happens, with when and in which order: a microbatch comes to a stage, forth
        or back, and rounds begin and are over."""
        passes, delay = 2 * self.row.stages, self.row.delay
        for number in range(self.config.run.steps * self.config.batch.microbatches):
            microbatch = MicrobatchId(*divmod(number, self.config.batch.microbatches))
            for at in range(passes):
                yield number + at * delay, number, f"at {at:03}", microbatch
            if microbatch.index + 1 == self.config.batch.microbatches:
                over_at = number + (passes - 1) * delay
                yield over_at, number, "contribute", microbatch
                yield over_at + self.row.late * MICROBATCHES, number, "merge", microbatch

    def _pass(self, microbatch: MicrobatchId) -> None:
        """Compute a microbatch where it is."""
        if microbatch not in self._passing:
            if microbatch.index % MICROBATCHES == 0:
                self._routes = self._draw_routes()
            self._passing[microbatch] = Passing(microbatch, next(self._routes), self.data)
        if self._passing[microbatch].go_on():
            del self._passing[microbatch]

    def _draw_routes(self) -> Iterator[tuple[Replica, ...]]:
        """Return ways for as many microbatches as a synchronous step has: as many through each
        replica."""
        each = MICROBATCHES // self.row.replicas
        columns = []
        for replicas in self.stages:
            column = [replica for replica in replicas for _ in range(each)]
            if not self.row.islands:
                self.rng.shuffle(column)
            columns.append(column)
        return zip(*columns, strict=True)

    def _contribute(self, step: int) -> None:
        """Begin a round in all stages."""
        self._contributed = [self._members([r.stage for r in stage]) for stage in self.stages]
        for member in itertools.chain(*self._contributed):
            member.contribute(step)

    def _merge(self, step: int) -> None:
        """End a round in all stages, and make the next version."""
        averages = self.config.averaging.is_on
        means, all_given = [], dict[Stage, Tensor]()
        for members in self._contributed:
            share = self.config.batch.microbatches * len(members) // self.row.replicas
            weight = share if averages else share * self.config.microbatch_tokens
            given = {member: member.contribution(step) for member in members}
            means.append(self._mean(members[0], step, list(given.values()), weight))
            all_given |= given
        norm = torch.stack([mean.norm() for mean in means]).norm().item()
        scale = clip_scale(norm, self.config.optimizer.clip_norm)
        for replicas, mean in zip(self.stages, means, strict=True):
            digests = {
                replica.stage.step(mean, scale, all_given.get(replica.stage))
                for replica in replicas
            }
            assert len(digests) == 1, "replicas hold unequal anchors"

    def _members(self, replicas: list[Stage]) -> list[Stage]:
        """Return who takes part. Whoever does not has lost its work when it is back."""
        if not self.row.missing:
            return replicas
        lost = self.rng.sample(replicas, len(replicas) // self.row.missing)
        for replica in lost:
            replica.clear_gradients()
        return [replica for replica in replicas if replica not in lost]

    def _mean(self, stage: Stage, step: int, given: list[Tensor], divisor: int) -> Tensor:
        """Return what all members hold after a reduce: each owns a part of it."""
        size, owners, payload = stage.num_parameters, len(given), self._payload
        if self.config.averaging.is_on:
            size = stage.contribution_numel(step)
        total = torch.zeros(size, dtype=payload.dtype)
        for owner in range(owners):
            pieces = [whole[part_range(len(whole), owner, owners)] for whole in given]
            sent = [payload.encode(piece.contiguous()) for piece in pieces]
            slices = [None if other == owner else piece for other, piece in enumerate(sent)]
            where = part_range(size, owner, owners, payload.unit)
            payload.add_up(slices, pieces[owner], total[where], divisor)
        return total

    def loss(self) -> float:
        """Return the held-out loss of the anchors."""
        total = tokens = 0.0
        for index in range(HELD_OUT):
            microbatch = MicrobatchId(0, index, held_out=True)
            value, targets = map(torch.from_numpy, self.data.microbatch(microbatch))
            for replicas in self.stages:
                forwarded = _forward(replicas[0].stage, microbatch, value, targets)
                if forwarded.output is not None:
                    value = forwarded.output
            total, tokens = total + (forwarded.loss_sum or 0.0), tokens + forwarded.tokens
        return total / tokens


def _forward(stage: Stage, microbatch: MicrobatchId, value: Tensor, targets: Tensor) -> Forwarded:
    return stage.forward(microbatch, value, targets if stage.is_last else None)


# ---------------------------------------------------------------------- all rows


Found = dict[str, dict[str, dict[str, float]]]  # by row and seed


def gap(found: Found, name: str) -> float | None:
    """Return how much worse a row is than synchronous training of its seeds, in percent."""
    which = name[: name.rfind(":") + 1]  # of the same model
    base, losses = found.get(f"{which}sync-x1", {}), found[name]
    seeds = sorted(set(base) & set(losses))
    if not seeds:
        return None
    gaps = [100 * (losses[seed]["loss"] / base[seed]["loss"] - 1) for seed in seeds]
    return statistics.mean(gaps)


def table(found: Found) -> str:
    lines = ["| row | seeds | loss | gap |", "|---|---|---|---|"]
    for name in found:
        loss = statistics.mean(entry["loss"] for entry in found[name].values())
        beyond = gap(found, name)
        told = "" if beyond is None else f"{beyond:+.1f} %"
        lines.append(f"| {name} | {len(found[name])} | {loss:.4f} | {told} |")
    return "\n".join(lines)


def plot(found: Found, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for replicas in (2, 4):
        names = {m: f"r{replicas}-m{m}" for m in (1, 2, 5, 10, 20, 50)}
        curve = {m: gap(found, name) or 0.0 for m, name in names.items() if name in found}
        axes.plot(list(curve), list(curve.values()), "o-", label=f"R = {replicas}")
        if (never := f"r{replicas}-never") in found:
            line = gap(found, never) or 0.0
            axes.axhline(line, linestyle=":", label=f"R = {replicas}, never")
    axes.set_xscale("log")
    axes.set_xlabel("own steps between two rounds")
    axes.set_ylabel("held-out loss beyond synchronous, %")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[""], help="how the names of rows begin")
    parser.add_argument("--exact", nargs="+", choices=ROWS, help="rows, in this order")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--lr", type=float, default=8e-3, help="tuned for synchronous training")
    parser.add_argument("--out", type=Path, default=Path("averaging.json"))
    parser.add_argument("--plot", type=Path, help="draw the curves there, and train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: Found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.plot:
        plot(found, options.plot)
        print(table(found))
        return
    chosen = options.exact or [n for n in ROWS if n.startswith(tuple(options.only))]
    for name in chosen:
        for seed in options.seeds:
            if str(seed) in found.get(name, {}):
                continue
            began_at = time.monotonic()
            config = config_of(ROWS[name], seed, options.lr)
            result = Swarm(ROWS[name], config, open_data(config)).train()
            result["seconds"] = round(time.monotonic() - began_at, 1)
            found.setdefault(name, {})[str(seed)] = result
            options.out.write_text(json.dumps(found, indent=1) + "\n")
            beyond = gap(found, name)
            told = "" if beyond is None else f" ({beyond:+.1f} % so far)"
            print(f"{name} seed {seed}: {result}{told}", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
