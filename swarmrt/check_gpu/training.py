"""A stage alone on the device: tokens a second, MFU, and its memory against the predicted."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.models import batch
from swarmrt.check_gpu.sizes import IN_FLIGHT, config_for, flops_per_token
from swarmrt.check_gpu.timing import median_s
from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.stage import Forwarded, Stage

QUEUED = 8  # microbatches asked for, one after the other
STATE_BYTES = 16  # of a parameter in float32: weights, gradients, two moments
# Dense bfloat16 products a second by the makers' data sheets, by a part of the card's name.
DATA_SHEETS = {
    "H100 80GB HBM3": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "4090": 165e12,
    "3090": 71e12,
}


def check(job: Job) -> None:
    config = config_for(job)
    compute_repeatably(config, job.device)
    ceiling = _products_per_s(job)
    job.book.figure("product_flops_per_s", ceiling)
    stage = Stage(config, 0, job.device)
    matrices = stage.num_parameters - config.model.vocab * config.model.width
    flops = flops_per_token(config, matrices)
    job.book.figure("parameters", stage.num_parameters)
    job.book.figure("model_parameters", 2 * stage.num_parameters)
    job.book.figure("flops_per_token", flops)
    _memory(job, config, stage)
    if job.is_gpu:
        job.book.figure("launching_fraction", _launching_fraction(_work(job, config, stage, False)))
    rates = {}
    for name, later in (("", False), ("in_halves", True)):
        rates[name] = _tokens_per_s(job, config, stage, later=later)
        _figures(job, name, rates[name], flops, ceiling)
    if job.is_gpu:  # what repeating to the bit costs
        torch.use_deterministic_algorithms(False)
        _figures(job, "not_repeatable", _tokens_per_s(job, config, stage), flops, ceiling)
    reduced = torch.zeros(stage.num_parameters)
    job.book.figure("update_s", median_s(job.device, lambda: stage.step(reduced, 1.0), 3, 1))
    job.book.say(
        f"{stage.num_parameters / 1e6:.0f} million parameters: {rates['']:,.0f} tokens/s, "
        f"{rates[''] * flops / ceiling:.2f} of what products alone reach"
    )


def _figures(job: Job, name: str, rate: float, flops: float, ceiling: float) -> None:
    suffix = f"_{name}" if name else ""
    job.book.figure(f"tokens_per_s{suffix}", rate)
    job.book.figure(f"over_products{suffix}", rate * flops / ceiling)
    peak = data_sheet_flops_per_s(job)
    if peak is not None:
        job.book.figure(f"mfu{suffix}", rate * flops / peak)


def data_sheet_flops_per_s(job: Job) -> float | None:
    """Return what the maker promises of the card; None for one that is not in the table."""
    if not job.is_gpu:
        return None
    card = torch.cuda.get_device_name(0)
    return next((flops for part, flops in DATA_SHEETS.items() if part in card), None)


def _products_per_s(job: Job) -> float:
    """Floating-point operations a second of one large product in bfloat16, on random values."""
    width = 8192 if job.is_gpu else 256
    generator = torch.Generator().manual_seed(1)
    one, other = (
        torch.randn(width, width, generator=generator).to(job.device, torch.bfloat16)
        for _ in range(2)
    )
    return 2.0 * width**3 / median_s(job.device, lambda: one @ other, 10)


# ---------------------------------------------------------------------- throughput


def _tokens_per_s(job: Job, config: RunConfig, stage: Stage, *, later: bool = False) -> float:
    """Return the throughput of forward and backward, one microbatch after the other."""
    work = _work(job, config, stage, later)
    tokens = config.batch.microbatch * config.model.sequence
    return tokens / median_s(job.device, work, 12 if job.is_gpu else 3)


def _launching_fraction(work: Callable[[], None]) -> float:
    """Return the share of the time in which the host still asks for what the device is to do. Where
    it is 1 the host is the limit, and figures say more of it than of the device."""
    work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(QUEUED):
        work()
    launched = time.perf_counter()
    torch.cuda.synchronize()
    return (launched - started) / (time.perf_counter() - started)


def _work(job: Job, config: RunConfig, stage: Stage, later: bool) -> Callable[[], None]:
    microbatch, tokens, _ = batch(config, 0)
    there = tokens.to(job.device)
    grad = _output_grad(job, config)

    def work() -> None:
        forwarded = stage.forward(microbatch, there, None)
        stage.backward(forwarded, grad, later=later)
        stage.add_weight_gradients(forwarded)

    return work


def _output_grad(job: Job, config: RunConfig) -> torch.Tensor:
    shape = (config.batch.microbatch, config.model.sequence, config.model.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(job.device) * 1e-3


# ---------------------------------------------------------------------- memory


def _memory(job: Job, config: RunConfig, stage: Stage) -> None:
    """Measure what parameters take and what autograd says that it keeps, beside what was taken."""
    kept = _kept_bytes(job, config, stage)
    predicted = STATE_BYTES * stage.num_parameters + IN_FLIGHT * kept
    job.book.figure("microbatches_in_flight", IN_FLIGHT)
    job.book.figure("kept_of_a_microbatch_bytes", kept)
    job.book.figure("predicted_bytes", predicted)
    if not job.is_gpu:
        return
    _, tokens, _ = batch(config, 0)
    grad = _output_grad(job, config)
    torch.cuda.reset_peak_memory_stats()
    under_way: list[Forwarded] = []
    for number in range(IN_FLIGHT):
        under_way.append(stage.forward(MicrobatchId(0, number), tokens, None))
    for forwarded in under_way:
        stage.backward(forwarded, grad)
    stage.step(torch.zeros(stage.num_parameters), 1.0)
    peak = torch.cuda.max_memory_allocated()
    job.book.figure("peak_bytes", peak)
    job.book.figure("peak_over_predicted", peak / predicted)


def _kept_bytes(job: Job, config: RunConfig, stage: Stage) -> int:
    """Return the bytes that one microbatch's graph holds beside the stage's own state."""
    own = {tensor.untyped_storage().data_ptr() for tensor in stage.live_state().values()}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    microbatch, tokens, _ = batch(config, 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forwarded = stage.forward(microbatch, tokens, None)
    stage.backward(forwarded, _output_grad(job, config))
    return sum(sizes.values())
