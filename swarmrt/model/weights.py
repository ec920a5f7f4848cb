"""The weights that a stage has, in the copies that it runs on and the one that it tells others.

How versions of them come about is behind this interface: replicas that commit together
(`committed`) and those that go apart and are averaged (`averaged`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakSet

from torch import Tensor, nn

from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice
from swarmrt.model.flat import Accumulators, Flat
from swarmrt.model.updating import Updated


class LocalReport(NamedTuple):
    """The account of what a replica did by itself for the version that was made last."""

    steps: int = 0  # of its own
    late_fraction: float = 0.0  # microbatches whose backward came after newer weights, of all
    drift: float = 0.0  # its distance from the anchor before the round, beside the anchor's norm


@dataclass(eq=False)
class Copy:
    """The stage's layers, and their weights in one piece."""

    layers: Slice
    flat: Flat
    parameters: dict[str, nn.Parameter]  # that are trained
    graphs: WeakSet[Graph] = field(default_factory=WeakSet)  # that hang on these weights


@dataclass(eq=False)
class Graph:
    """The graph that backward needs: autograd's hangs on `end`."""

    microbatch: MicrobatchId
    inputs: Tensor
    targets: Tensor | None
    end: Tensor | None  # the output, or the loss sum; None when it is to be computed again
    step: int  # whose gradients it adds to
    copy: Copy  # that it ran on


class Weights(ABC):
    """The weights of a stage. Not thread-safe: one call at a time."""

    newest: Copy  # the version that is told to others, and evaluated
    updated: Updated  # that an optimizer changes
    version: int  # of the newest: how many were made before it
    overlap: int  # steps that may run beside the one that the next version is made of

    # ------------------------------------------------------------------ a microbatch

    @abstractmethod
    def copy_for(self, step: int) -> Copy:
        """Return the copy that a microbatch of this step runs on now."""

    @abstractmethod
    def receive(self, copy: Copy, step: int) -> Accumulators:
        """Have autograd add what comes of a copy to the gradients of a step, which are returned. To
        be called before a backward."""

    def began(self, graph: Graph) -> None:
        """Take note that a graph hangs on its copy, for as long as anybody holds it."""
        graph.copy.graphs.add(graph)

    def ended(self, graph: Graph) -> None:
        """Take note that the backward of a graph is over."""
        graph.copy.graphs.discard(graph)

    @abstractmethod
    def added(self, microbatch: MicrobatchId, step: int) -> None:
        """Take note that all of a microbatch's gradient has been added."""

    def size_own_steps(self, microbatches: int) -> None:
        """Make a step of the replica's own once so many microbatches wait for it, where there are
        such; 0 is never."""
        return

    # ------------------------------------------------------------------ what replicas combine

    @abstractmethod
    def gradients(self, step: int) -> Tensor:
        """Return the flat sums of a step, a live view."""

    def contribute(self, step: int) -> None:
        """Fix what this replica gives for the next version. It may be called again."""
        if step != self.version:
            raise ValueError(f"step {step} is not what the version after {self.version} is made of")

    def contribution(self, step: int) -> Tensor:
        """Return what this replica gives for the next version, flat."""
        return self.gradients(step)

    def contribution_numel(self, step: int) -> int:
        """Return how many values replicas combine for the version after this step."""
        return self.newest.flat.num_parameters

    # ------------------------------------------------------------------ versions

    @abstractmethod
    def step(self, reduced: Tensor, clip_scale: float, given: Tensor | None = None) -> None:
        """Make the next version of what the replicas have combined, of which this one has given
        `given`, if anything."""

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> None:
        """Make the next version of what owners of parts have made of all slices."""
        raise ValueError("replicas that are averaged make their versions themselves")

    @abstractmethod
    def skip(self) -> None:
        """Make the next version without it."""

    @abstractmethod
    def clear(self) -> None:
        """Lose whatever is in no version."""

    @property
    @abstractmethod
    def masters(self) -> Tensor:
        """Return the flat parameters of the newest version, in at least float32."""

    @abstractmethod
    def state(self, version: int) -> dict[str, Tensor]:
        """Return live views of what a version has beside the model's own tensors."""

    @abstractmethod
    def restored(self, version: int) -> None:
        """Take over what has been written into the views that `state` gave, and into the newest
        copy, as this version."""

    @abstractmethod
    def all_layers(self) -> Iterable[Slice]:
        """Return the layers of all copies, the newest first."""

    def local_report(self) -> LocalReport:
        """Return what the replica did by itself."""
        return LocalReport()
