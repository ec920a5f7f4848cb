"""A stage on the device: against the CPU within bounds, and against itself to the bit.

What it is compared with is always float32 on the CPU. A difference is that of two tensors, by norm,
over the norm of the CPU's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.models import Sections, batch, decoder
from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.build import build_layers
from swarmrt.model.partition import measure
from swarmrt.model.probe import probe
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.stage import Stage
from swarmrt.runtime.state.snapshot import read_snapshot, write_snapshot

MICROBATCHES = 3
PRECISIONS: dict[str, Sections] = {
    "float32": {},
    "bfloat16 products": {"precision": {"compute": "bfloat16"}},
    "bfloat16": {"model": {"dtype": "bfloat16"}},
}
# Sums of some thousand products: float32 has 24 bits of precision, bfloat16 8.
FORWARD_BOUND = {"float32": 1e-5, "bfloat16 products": 2e-2, "bfloat16": 4e-2}
BACKWARD_BOUND = {"float32": 1e-4, "bfloat16 products": 6e-2, "bfloat16": 1e-1}
UPDATE_BOUND = {"adamw": 1e-6, "muon": 1e-5}  # of float32 weights, given the same gradient


@dataclass
class Computed:
    """The results of two stages, one after the other, for some microbatches; on the CPU."""

    outputs: list[Tensor] = field(default_factory=list)  # of the first stage
    input_grads: list[Tensor] = field(default_factory=list)  # of the second one
    loss_sums: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # flat, of each stage

    @property
    def backward(self) -> list[Tensor]:
        return [*self.input_grads, *self.gradients]


def check(job: Job) -> None:
    plain = _config(job)
    compute_repeatably(plain, job.device)
    on_cpu = compute(_stages(plain, "cpu"), plain)
    for name, sections in PRECISIONS.items():
        _against_the_cpu(job, name, on_cpu, compute(_built(job, sections), _config(job, sections)))
        _against_itself(job, name, sections)
    _ways_of_backward(job)
    for kind in UPDATE_BOUND:
        _update(job, kind)
    _draws(job)
    _trial(job)
    job.book.say(f"{len(PRECISIONS)} precisions on {job.device}")


def _config(job: Job, sections: Sections | None = None) -> RunConfig:
    sequence, microbatch = (256, 4) if job.is_gpu else (128, 2)
    return decoder(4, 256, sequence, microbatch, sections)


def _stages(config: RunConfig, device: str) -> list[Stage]:
    return [Stage(config, index, device) for index in range(config.num_stages)]


def _built(job: Job, sections: Sections | None = None) -> list[Stage]:
    return _stages(_config(job, sections), job.device)


def compute(stages: list[Stage], config: RunConfig, *, later: bool = False) -> Computed:
    """Forward and backward of some microbatches; with `later` backward in its two halves."""
    found, (first, last) = Computed(), stages
    for number in range(MICROBATCHES):
        microbatch, tokens, targets = batch(config, number)
        one = first.forward(microbatch, tokens, None)
        assert one.output is not None
        two = last.forward(microbatch, one.output, targets)
        assert two.loss_sum is not None
        input_grad = last.backward(two, None, later=later)
        assert input_grad is not None
        first.backward(one, input_grad, later=later)
        for stage, forwarded in ((first, one), (last, two)):
            stage.add_weight_gradients(forwarded)
        found.outputs.append(one.output.float().cpu())
        found.input_grads.append(input_grad.float().cpu())
        found.loss_sums.append(two.loss_sum)
    found.gradients = [stage.gradients().cpu().clone() for stage in stages]
    return found


# ---------------------------------------------------------------------- comparisons


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest of the pairs' differences; NaN where there is one in what was found."""
    differences = [
        float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))
        for one, other in zip(found, expected, strict=True)
    ]
    return max(differences) if all(d == d for d in differences) else float("nan")


def _against_the_cpu(job: Job, name: str, expected: Computed, found: Computed) -> None:
    losses = zip(found.loss_sums, expected.loss_sums, strict=True)
    for what, value, bound in (
        ("forward", difference(found.outputs, expected.outputs), FORWARD_BOUND[name]),
        ("loss", max(abs(one / other - 1) for one, other in losses), FORWARD_BOUND[name]),
        ("backward", difference(found.backward, expected.backward), BACKWARD_BOUND[name]),
    ):
        job.book.figure(f"{name}: {what} against float32 on the CPU", value)
        job.book.expect(value <= bound, f"{name}: {what} differs by {value:.1e}, over {bound:.0e}")


def _against_itself(job: Job, name: str, sections: Sections) -> None:
    config = _config(job, sections)
    one, other = (compute(_built(job, sections), config) for _ in range(2))
    job.book.expect(_same(one, other), f"{name}: two runs differ")


def _same(one: Computed, other: Computed) -> bool:
    pairs = zip(one.outputs + one.backward, other.outputs + other.backward, strict=True)
    return one.loss_sums == other.loss_sums and all(torch.equal(a, b) for a, b in pairs)


def _ways_of_backward(job: Job) -> None:
    """Check that backward in two halves, and with everything computed again, gives the same."""
    config = _config(job)
    whole = compute(_built(job), config)
    halves = compute(_built(job), config, later=True)
    apart = difference(halves.backward, whole.backward)
    job.book.figure("backward in halves, to the bit", _same(whole, halves))
    job.book.expect(apart <= 1e-6, f"backward in two halves differs by {apart:.1e}")
    recompute: Sections = {"model": {"recompute": True}}
    again = compute(_built(job, recompute), _config(job, recompute))
    job.book.expect(_same(whole, again), "backward with recompute differs")


def _update(job: Job, kind: str) -> None:
    """Compare what an update makes of one gradient and state on both, and what goes between."""
    config = _config(job, {"optimizer": {"kind": kind}})
    here, there = Stage(config, 1, "cpu"), Stage(config, 1, job.device)
    job.book.expect(here.digest() == there.digest(), "the first weights differ from the CPU's")
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        reduced = torch.randn(here.num_parameters, generator=generator) * 1e-2
        digests = [stage.step(reduced, 0.5) for stage in (here, there)]
    weights = [list(stage.named_parameters_state().values()) for stage in (there, here)]
    apart = difference(weights[0], weights[1])
    job.book.figure(f"{kind}'s update against the CPU", apart)
    job.book.figure(f"{kind}'s update equals the CPU's to the bit", digests[0] == digests[1])
    is_near = apart <= UPDATE_BOUND[kind]
    job.book.expect(is_near, f"three updates by {kind} differ by {apart:.1e} from the CPU's")
    data = write_snapshot(1, there.version, there.live_state())
    here.load_state(read_snapshot(data, "the snapshot"), there.version)
    job.book.expect(here.digest() == there.digest(), "a state that was loaded differs")


def _draws(job: Job) -> None:
    """Check that with dropout too two runs are equal, and that draws are there."""
    sections: Sections = {"model": {"dropout": 0.2}}
    _against_itself(job, "float32 with dropout", sections)
    dropped = compute(_built(job, sections), _config(job, sections))
    plain = compute(_built(job), _config(job))
    apart = difference(dropped.outputs, plain.outputs)
    job.book.expect(apart > 0.01, "dropout drops nothing")


def _trial(job: Job) -> None:
    """Try a cut, as is done before a run with a model that computes on an accelerator alone."""
    config = _config(job, {"model": {"dropout": 0.2}})
    _, tokens, targets = batch(config, 0)
    try:
        probe(config, tokens, targets, job.device)
    except ModelError as error:
        job.book.expect(False, f"the trial of a cut: {error}")
    costs = measure(build_layers(config), job.device)
    job.book.expect(all(cost.seconds > 0 for cost in costs), "a layer costs nothing")
