"""A stage whose computing is a calibrated sleep, as a GPU looks to the CPU: the thread waits, the
GIL is free. What remains is the runtime around it.

A tiny model is trained in truth, so that gradients, reduces, updates and digests are real; a
computation then lasts until its emulated seconds are over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId
from swarmrt.model.stage import Forwarded, Stage

MODEL = "swarmrt.lab.bench.emulation:tiny_model"
MOST_OWED_S = 0.1  # a wake-up later than this is the machine's fault, and shows
MOST_S = 3600.0
LEFT = 0.5  # of a backward is weights' gradients


@dataclass(frozen=True)
class Speed:
    """The seconds that one microbatch takes at one peer."""

    forward_s: float
    backward_s: float

    @property
    def microbatches_per_s(self) -> float:
        return 1 / (self.forward_s + self.backward_s)

    def __str__(self) -> str:
        """Return the text that `swarmrt serve --emulate` takes."""
        return f"{self.forward_s!r},{self.backward_s!r}"


def parse_speed(text: str) -> Speed:
    """Read `FORWARD_S,BACKWARD_S`. Raises UsageError."""
    try:
        forward_s, backward_s = map(float, text.split(","))
    except ValueError:
        forward_s = backward_s = -1.0
    if not (0 <= forward_s <= MOST_S and 0 <= backward_s <= MOST_S and forward_s + backward_s):
        raise UsageError(
            f"--emulate {text}: write the seconds of a forward and of a backward, like 0.03,0.07"
        )
    return Speed(forward_s, backward_s)


class Pace:
    """Makes computations last as long as they should, on average.

    A sleep ends late, by 0.1 ms and by more when the cores are busy. What one computation took too
    long is taken off the next, as a device would not have stood still meanwhile.
    """

    def __init__(self) -> None:
        self._owed_s = 0.0

    def last(self, began_at: float, seconds: float) -> None:
        """Return when a computation that began then, on `time.monotonic`, is over."""
        end_at = began_at + seconds - self._owed_s
        wait_s = end_at - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        self._owed_s = min(max(0.0, time.monotonic() - end_at), MOST_OWED_S)


class EmulatedStage(Stage):
    """A stage at the speed of another device."""

    def __init__(self, speed: Speed, config: RunConfig, stage_index: int, device: str) -> None:
        super().__init__(config, stage_index, device)
        self._speed, self._pace = speed, Pace()

    def forward(
        self, microbatch: MicrobatchId, inputs: Tensor, targets: Tensor | None
    ) -> Forwarded:
        began_at = time.monotonic()
        forwarded = super().forward(microbatch, inputs, targets)
        self._pace.last(began_at, self._speed.forward_s)
        return forwarded

    def backward(
        self,
        forwarded: Forwarded,
        output_grad: Tensor | None,
        *,
        accumulate: bool = True,
        later: bool = False,
    ) -> Tensor | None:
        began_at = time.monotonic()
        input_grad = super().backward(forwarded, output_grad, accumulate=accumulate, later=later)
        self._pace.last(began_at, self._speed.backward_s * (1 - LEFT if later else 1))
        return input_grad

    def add_weight_gradients(self, forwarded: Forwarded) -> None:
        began_at = time.monotonic()
        super().add_weight_gradients(forwarded)
        self._pace.last(began_at, self._speed.backward_s * LEFT)


# ---------------------------------------------------------------------- the tiny model


def tiny_model(
    layers: int, vocab: int, width: int, more_rows: int = 0, idle: int = 0
) -> tuple[list[Callable[[], nn.Module]], Any]:
    """An embedding, scales and a head: as little to compute as there can be. A builder for
    `model.kind`. More rows of the embedding than tokens make a large state of it, and so do idle
    parameters, in each layer."""
    middle = [partial(Scale, width)] * (layers - 2)
    ends = partial(nn.Embedding, vocab + more_rows, width), partial(nn.Linear, width, vocab)
    builders: list[Callable[[], nn.Module]] = [ends[0], *middle, ends[1]]
    return [partial(WithIdle, build, idle) if idle else build for build in builders], _loss


class WithIdle(nn.Module):
    """A layer with parameters that are updated and sent like all others, and compute nothing."""

    def __init__(self, build: Callable[[], nn.Module], number: int) -> None:
        super().__init__()
        self.layer = build()
        self.idle = nn.Parameter(torch.full((number,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x))


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _loss(output: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, 1), targets.flatten(), reduction="sum")
