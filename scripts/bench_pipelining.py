"""Training throughput beside torch.distributed.pipelining's 1F1B, on this machine.

    .venv/bin/python scripts/bench_pipelining.py [--steps 8] [--rounds 3]

The same model (8 blocks, width 512, sequence 128), the same data, AdamW and clipping; two stages,
one process and one torch thread each; 8 microbatches of 4 sequences a step. Theirs runs over gloo
on loopback, without fault tolerance, digests or a ledger; ours is `swarmrt local`. The two take
turns, and the first steps of each turn do not count. The last line is JSON: tokens per second of
both, and `ratio`, ours over theirs: the median over the pairs of turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[run]
name = "bench"
[model]
layers = 8
width = 512
heads = 8
kv_heads = 8
sequence = 128
[stages]
layers = [4, 4]
[batch]
microbatch = 4
microbatches = 8
[optimizer]
lr = 1e-3
[evaluation]
every_steps = 0
microbatches = 1
[checkpoint]
every_steps = 0
"""
TOKENS = 4 * 8 * 128  # of a step
WARM_UP_STEPS = 2
PATIENCE_S = 1800


# ------------------------------------------------------------------------------ ours


def our_step_times(config: Path, steps: int, folder: Path) -> list[float]:
    """Seconds of each step of a run with two peers."""
    command = [sys.executable, "-m", "swarmrt", "local", str(config), "--replicas", "1,1"]
    command += ["--steps", str(steps), "--threads", "1", "--run-dir", str(folder)]
    subprocess.run(command, check=True, timeout=PATIENCE_S, stdout=sys.stderr)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [entry["seconds"] for entry in map(json.loads, lines) if "seconds" in entry]


# ------------------------------------------------------------------------------ theirs


def their_step_times(config: Path, steps: int) -> list[float]:
    """Seconds of each step of Schedule1F1B with two ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, __file__, "--rank-of", str(config), "--steps", str(steps)]
    ranks = [
        subprocess.Popen(
            command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=PATIENCE_S)[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit("a rank of the baseline failed")
    times: list[float] = json.loads(outputs[1].splitlines()[-1])
    return times


def run_rank(config_path: Path, steps: int) -> None:
    """One rank of the baseline; the last one prints its step times."""
    import torch
    import torch.distributed as dist
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    from swarmrt.config_toml import load_config
    from swarmrt.data import open_data
    from swarmrt.ids import MicrobatchId
    from swarmrt.model.build import build_layer, build_layers

    torch.set_num_threads(1)
    config = load_config(config_path)
    assert config.stages.layers is not None
    dist.init_process_group("gloo")
    rank, device = dist.get_rank(), torch.device("cpu")
    first = sum(config.stages.layers[:rank])
    model = build_layers(config)
    layers = range(first, first + config.stages.layers[rank])
    module = torch.nn.Sequential(*(m for i in layers for _, m in build_layer(model, i)))
    stage = PipelineStage(module, rank, 2, device)
    number = config.batch.microbatches

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return model.loss_sum(output, targets) / targets.numel()

    schedule = Schedule1F1B(stage, number, loss_fn=loss)
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.optimizer.lr, fused=True)
    data = open_data(config)
    times = []
    for step in range(steps):
        batches = [data.microbatch(MicrobatchId(step, index)) for index in range(number)]
        inputs, targets = (torch.cat([torch.from_numpy(b[i]) for b in batches]) for i in (0, 1))
        started = time.perf_counter()
        if rank == 0:
            schedule.step(inputs)
        else:
            schedule.step(target=targets, losses=[])
        clip(module, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    dist.destroy_process_group()
    print(json.dumps(times))


def clip(module: object, bound: float) -> None:
    """By the norm over both ranks, as we do."""
    import torch
    import torch.distributed as dist

    assert isinstance(module, torch.nn.Module)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    square = torch.stack([gradient.norm() ** 2 for gradient in gradients]).sum()
    dist.all_reduce(square)
    scale = (bound / (square.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)


# ------------------------------------------------------------------------------ the comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        run_rank(arguments.rank_of, arguments.steps)
        return
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "bench.toml"
        config.write_text(CONFIG)
        for number in range(arguments.rounds):
            their_times = their_step_times(config, arguments.steps)[WARM_UP_STEPS:]
            our_times = our_step_times(config, arguments.steps, folder / str(number))
            theirs.append(TOKENS / statistics.median(their_times))
            ours.append(TOKENS / statistics.median(our_times[WARM_UP_STEPS:]))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    result = {
        "swarmrt_tokens_per_s": round(statistics.median(ours), 1),
        "pipelining_tokens_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
