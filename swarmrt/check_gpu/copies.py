"""Do copies between host and device overlap with computing? The profiler says.

A stage in the middle of a pipeline is fed as a peer feeds it: inputs and gradients come from the
host's memory, outputs and gradients go there, a thread waits for them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.sizes import config_for
from swarmrt.check_gpu.spans import Span, length, shared
from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.repeatable import compute_repeatably
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.runtime.computing.transfers import Transfers

MICROBATCHES = 6
LARGER = 4  # microbatches than elsewhere: launching must not be what takes longest
AHEAD = 2  # forwards before the first backward, as in a pipeline of three stages
KINDS = {"HtoD": "to_device", "DtoH": "to_host"}


def check(job: Job) -> None:
    config = _three_stages(job, config_for(job))
    compute_repeatably(config, job.device)
    stage = Stage(config, 1, job.device)
    _feed(config, stage)  # the first ones make room in memory, and do not count
    activities = [ProfilerActivity.CUDA if job.is_gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        _feed(config, stage)
        if job.is_gpu:
            torch.cuda.synchronize()
    path = job.folder / "trace.json"
    profiler.export_chrome_trace(str(path))
    kernels, copies = spans_of(path)
    if not kernels:
        job.book.expect(not job.is_gpu, "the profiler has seen nothing on the device")
        job.book.say("nothing is copied on a CPU")
        return
    begin, end = min(span[0] for span in kernels), max(span[1] for span in kernels)
    job.book.figure("device_computes_fraction", length(kernels) / (end - begin))
    overlapped = {}
    for kind, its_spans in copies.items():
        overlapped[kind] = shared(its_spans, kernels) / length(its_spans)
        job.book.figure(f"{kind}_s", length(its_spans) / 1e6)
        job.book.figure(f"{kind}_beside_computing_fraction", overlapped[kind])
    job.book.expect("to_host" in overlapped, "the profiler has seen no copy to the host")
    says = ", ".join(f"{kind.replace('_', ' ')} {part:.2f}" for kind, part in overlapped.items())
    job.book.say(f"share of copies beside computing: {says}")


def _three_stages(job: Job, config: RunConfig) -> RunConfig:
    """A cut with a stage in the middle."""
    layers = max(3, config.model.layers // 2 if job.is_gpu else 3)
    middle = layers - 2 * (layers // 3)
    model = config.model.model_copy(update={"layers": layers})
    cut = (layers // 3, middle, layers // 3)
    batch = config.batch.model_copy(
        update={"microbatch": config.batch.microbatch * (LARGER if job.is_gpu else 1)}
    )
    return config.model_copy(update={"model": model, "batch": batch}).with_stage_layers(cut)


def _feed(config: RunConfig, stage: Stage) -> None:
    """Bring some microbatches through the stage, one backward after each forward."""
    transfers = Transfers(stage.device)
    generator = torch.Generator().manual_seed(4)
    shape = (config.batch.microbatch, config.model.sequence, config.model.width)
    value = torch.randn(shape, generator=generator).to(torch.bfloat16)
    under_way: list[Forwarded] = []
    with ThreadPoolExecutor(1) as to_host:
        waits: list[Future[torch.Tensor]] = []
        arriving = [transfers.to_device(value) for _ in range(MICROBATCHES)]
        grads = [transfers.to_device(value) for _ in range(MICROBATCHES)]
        for number in range(MICROBATCHES + AHEAD):
            if number < MICROBATCHES:
                inputs = arriving[number].take().to(stage.dtype)
                forwarded = stage.forward(MicrobatchId(0, number), inputs, None)
                assert forwarded.output is not None
                leaving = transfers.to_host(forwarded.output.to(torch.bfloat16))
                waits.append(to_host.submit(leaving.wait))
                under_way.append(forwarded)
            if number >= AHEAD:
                grad = grads[number - AHEAD].take().to(stage.dtype)
                input_grad = stage.backward(under_way.pop(0), grad)
                assert input_grad is not None
                leaving = transfers.to_host(input_grad.to(torch.bfloat16))
                waits.append(to_host.submit(leaving.wait))
        for wait in waits:
            wait.result()
    transfers.close()


def spans_of(trace: Path) -> tuple[list[Span], dict[str, list[Span]]]:
    """Kernels, and copies by kind, of a trace in Chrome's format; in microseconds."""
    kernels: list[Span] = []
    copies: dict[str, list[Span]] = defaultdict(list)
    for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]:
        category = event.get("cat", "")
        if category not in ("kernel", "gpu_memcpy"):
            continue
        span = (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        if category == "kernel":
            kernels.append(span)
        for mark, kind in KINDS.items():
            if category == "gpu_memcpy" and mark in event["name"]:
                copies[kind].append(span)
    return kernels, dict(copies)
