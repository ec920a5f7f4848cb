"""The weights of a stage whose replicas go apart and are averaged.

A version is an *anchor*, which all replicas hold. A *step* is the interval between two rounds.
Within it each replica makes optimizer steps of its own, as soon as `averaging.local_batch`
microbatches have been added, and its microbatches run on the newest weights that it has. A round
combines what replicas have changed, weighted by their microbatches; the strategy makes the next
anchor of it; and a replica takes the anchor in the place of what it has contributed, and keeps what
it has done for the step after. So nobody waits for a round (decision 0016).

Three rules make that exact:
- A microbatch's backward runs on the weights of its forward. Two copies of the layers run; own
  steps change flat masters, and are brought into the copy on which no graph hangs, which then is
  the newest. Until there is one, gradients go on adding up.
- An own step takes gradients of one step alone, so what a replica contributes to a round is of
  exactly the microbatches that the ledger says.
- What is void is lost as a whole: then the weights are the anchor again.

While the version is v, all that lies between a replica's weights and the anchor is of step v, or is
not averaged yet, but for what has been changed for step v + 1: that is kept beside as `ahead`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice
from swarmrt.model.flat import Accumulators
from swarmrt.model.optimizer import clip_scale, learning_rate
from swarmrt.model.own_steps import Added, bound_of, rate_of
from swarmrt.model.strategies import strategy_of
from swarmrt.model.updating import Updated
from swarmrt.model.weights import Copy, Graph, LocalReport, Weights

MASTER = "optimizer.master."


class Averaged(Weights):
    overlap = 1

    def __init__(self, config: RunConfig, build: Callable[[], Copy]) -> None:
        self.version = 0
        self._config, self._sync_steps = config, config.averaging.sync_steps
        self.newest = build()
        self._running = [build() for _ in range(2)]
        flat = self.newest.flat
        self.strategy = strategy_of(config, flat.num_parameters)
        self._anchor = flat.values.to(flat.exact) if flat.mixed else flat.values
        self._slots = {name: torch.zeros_like(self._anchor) for name in self.strategy.slots}
        self.updated = Updated(config, flat, apart=True)  # this replica's own weights
        self._synced = self._moments_of_sync_steps()
        self._ahead = torch.zeros_like(self._anchor)
        self._gradients = [Accumulators(c.flat, c.parameters) for c in self._running]  # by step
        self._receiving: dict[Copy, Accumulators] = dict(
            zip(self._running, self._gradients, strict=True)
        )
        self._contributions: dict[int, Tensor] = {}
        self._added: dict[int, Added] = {}
        self._replicas = 0.0  # by this one's share of the last step; 0 before
        self._own_step = config.averaging.local_batch  # microbatches of one; 0 for none
        self._is_behind = False  # the newest copy, as both have graphs
        self._own_steps = self._backwards = self._late = 0  # since the last version
        self._report = LocalReport()

    # ------------------------------------------------------------------ a microbatch

    def copy_for(self, step: int) -> Copy:
        self._bring()
        return self._running[0]

    def receive(self, copy: Copy, step: int) -> Accumulators:
        gradients = self._gradients_of(step)
        if self._receiving[copy] is not gradients:
            gradients.take_from(copy.flat, copy.parameters)
            self._receiving[copy] = gradients
        return gradients

    def ended(self, graph: Graph) -> None:
        super().ended(graph)
        self._backwards += 1
        self._late += graph.copy is not self._running[0]

    def added(self, microbatch: MicrobatchId, step: int) -> None:
        added = self._added.setdefault(step, Added())
        added.add(microbatch.index)
        self._bring()
        is_due = 0 < self._own_step <= len(added.waiting)
        if is_due and not self._is_sync(step) and self._is_free(1):
            self._step_alone(step)
            self._bring()

    def size_own_steps(self, microbatches: int) -> None:
        self._own_step = microbatches

    def _is_sync(self, step: int) -> bool:
        return step < self._sync_steps

    def _gradients_of(self, step: int) -> Accumulators:
        return self._gradients[step % 2]

    def gradients(self, step: int) -> Tensor:
        return self._gradients_of(step).sums

    # ------------------------------------------------------------------ its own steps

    def _step_alone(self, step: int) -> None:
        """Do an optimizer step with what is added of a step's gradients and not taken yet. Where
        they are not finite they are left as they are, to be found there."""
        added, gradients = self._added[step], self.gradients(step)
        count = len(added.waiting)
        tokens = count * self._config.microbatch_tokens
        norm = float(torch.linalg.vector_norm(gradients, dtype=torch.float64)) / tokens
        if not math.isfinite(norm):
            return
        replicas = self._replicas or added.replicas
        bound = bound_of(self._config, count, replicas)
        scale, rate = clip_scale(norm, bound) / tokens, rate_of(self._config, step, added, replicas)
        is_ahead = step > self.version
        if is_ahead:
            self._ahead.sub_(self.updated.masters)
        self.updated.step(gradients, scale, rate, scratch=gradients)
        if is_ahead:
            self._ahead.add_(self.updated.masters)
        self._gradients_of(step).clear()
        added.waiting.clear()
        self._own_steps += 1
        self._is_behind = True

    def _bring(self) -> None:
        """Bring the masters into the copy on which no graph hangs, if they have changed."""
        if self._is_behind and self._is_free(1):
            self._running.reverse()
            with torch.no_grad():
                self._running[0].flat.values.copy_(self.updated.masters)
            self._is_behind = False

    def _is_free(self, number: int) -> bool:
        """Return whether no backward is to come on a copy."""
        return all(graph.step < self.version for graph in self._running[number].graphs)

    # ------------------------------------------------------------------ rounds

    def contribute(self, step: int) -> None:
        super().contribute(step)
        if self._is_sync(step):
            return
        added = self._added.get(step)
        if added is not None and added.waiting:
            self._step_alone(step)
            self._bring()
        where = self.strategy.where(step)
        moved = self.updated.masters[where] - self._anchor[where]
        weight = 0 if added is None else added.counted
        self._contributions[step] = moved.sub_(self._ahead[where]).mul_(weight)

    def contribution(self, step: int) -> Tensor:
        return self.gradients(step) if self._is_sync(step) else self._contributions[step]

    def contribution_numel(self, step: int) -> int:
        if self._is_sync(step):
            return self.newest.flat.num_parameters
        return self.strategy.numel(step)

    def step(self, reduced: Tensor, clip_scale: float, given: Tensor | None = None) -> None:
        self._look_back()
        with torch.no_grad():
            if self._is_sync(self.version):
                self._update(reduced, clip_scale)
            else:
                self._merge(reduced.to(self._anchor.device))
            self._round_anchor()
        self._made()

    def _update(self, reduced: Tensor, clip_scale: float) -> None:
        """Do a step that all replicas share."""
        rate = learning_rate(self._config, self.version)
        self.updated.step(reduced, clip_scale, rate, scratch=self.gradients(self.version))
        self._anchor.copy_(self.updated.masters)
        for name, told in self._synced.items():
            told.copy_(self._moments()[name])

    def _merge(self, mean: Tensor) -> None:
        """Make the next anchor, and take it in the place of what has been contributed. Whoever had
        no microbatch of the step has contributed nothing, and keeps what is not averaged yet."""
        where, alpha = self.strategy.where(self.version), self._config.averaging.alpha
        rows = (self._anchor, self._ahead, self.updated.masters)
        anchor, ahead, own = (row[where] for row in rows)
        kept: Tensor | None = None
        if self.version not in self._added:
            kept, alpha = own - anchor - ahead, 0.0
        elif alpha:
            kept = (own - ahead).mul_(alpha)
        slots = {name: row[where] for name, row in self._slots.items()}
        self.strategy.advance(anchor, mean, slots)
        if kept is None:
            torch.add(anchor, ahead, out=own)
        else:
            own.copy_(kept.add_(anchor * (1.0 - alpha)).add_(ahead))

    def skip(self) -> None:
        self._look_back()
        if not self._is_sync(self.version):
            torch.add(self._anchor, self._ahead, out=self.updated.masters)
        self._made()

    def _made(self) -> None:
        """Count what has been made as the next version. What was ahead belongs to the step that is
        applied next."""
        self._gradients_of(self.version).clear()
        self._contributions.pop(self.version, None)
        if added := self._added.pop(self.version, None):
            has_clock = self._config.averaging.every_s > 0  # and steps of any number
            whole = added.passed if has_clock else self._config.batch.microbatches
            self._replicas = whole / added.counted
        self._ahead.zero_()
        self.version += 1
        self._is_behind = True
        self._bring()

    def clear(self) -> None:
        self.updated.masters.copy_(self._anchor)
        self._ahead.zero_()
        for gradients in self._gradients:
            gradients.clear()
        self._contributions.clear()
        self._added.clear()
        self._is_behind = True
        self._bring()

    # ------------------------------------------------------------------ its state

    @property
    def masters(self) -> Tensor:
        return self._anchor

    def state(self, version: int) -> dict[str, Tensor]:
        """Return the anchor in float32 where it is rounded for the model, the strategy's buffers,
        and the moments of the last step that all replicas shared, with which a newcomer begins.
        Without one, it begins with none: those of replicas differ."""
        flat = self.newest.flat
        rows = ({"master": self._anchor} if flat.mixed else {}) | self._slots
        named = {
            f"optimizer.{row}.{name}": values
            for row, whole in rows.items()
            for name, values in flat.named(whole)
        }
        return named | self._synced

    def restored(self, version: int) -> None:
        self.version = version
        self._round_anchor()
        for name, values in self._moments().items():
            values.copy_(self._synced[name]) if self._synced else values.zero_()
        self.updated.restored()
        self.clear()

    def _moments(self) -> dict[str, Tensor]:
        """Return live views of this replica's own moments, by name."""
        state = self.updated.state()
        return {name: row for name, row in state.items() if not name.startswith(MASTER)}

    def _moments_of_sync_steps(self) -> dict[str, Tensor]:
        """Return a copy of the moments, if there are steps that all replicas share."""
        moments = self._moments() if self._sync_steps else {}
        return {name: values.clone() for name, values in moments.items()}

    def _round_anchor(self) -> None:
        """Bring the anchor into the model's own parameters."""
        if self.newest.flat.mixed:
            self.newest.flat.values.copy_(self._anchor)

    def all_layers(self) -> list[Slice]:
        return [copy.layers for copy in (self.newest, *self._running)]

    # ------------------------------------------------------------------ how it went

    def _look_back(self) -> None:
        """Take note of what this replica did by itself, before a version is made."""
        apart = float(torch.dist(self.updated.masters, self._anchor))
        norm = float(torch.linalg.vector_norm(self._anchor))
        late = self._late / self._backwards if self._backwards else 0.0
        self._report = LocalReport(self._own_steps, late, apart / norm if norm else 0.0)
        self._own_steps = self._backwards = self._late = 0

    def local_report(self) -> LocalReport:
        return self._report
