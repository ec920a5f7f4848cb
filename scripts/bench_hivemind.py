"""Training throughput beside a chain of hivemind's RemoteExperts, on this machine.

    .venv/bin/python scripts/bench_hivemind.py [--steps 8] [--rounds 3] [--each-backward]

The same model (8 blocks, width 512, sequence 128), the same data; two stages, one process and one
torch thread each; 8 microbatches of 4 sequences a step. Ours is `swarmrt local`, as it comes.
Theirs, with all that we know of to its advantage:

- The four blocks of a stage are one expert. Embedding, head and loss are in the client, as in such
  chains; here they are 1 % of the parameters.
- All microbatches of a step are in flight at once, each in a thread of the client, and none waits
  for another: neither claims, nor a ledger, nor a norm of the whole gradient to clip by.
- hivemind's ModuleBackend steps its optimizer in each backward. Here AdamW takes a step only once
  all sequences of a step have been seen, so that both train alike; with `--each-backward` it is as
  hivemind has it.
- No compression, and no experts to be looked up: the client is told where they are.

The two take turns, and the first steps of each turn do not count. The last line is JSON: tokens per
second of both, and `ratio`, ours over theirs: the median over the pairs of turns.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from bench_pipelining import CONFIG, PATIENCE_S, TOKENS, WARM_UP_STEPS, our_step_times

NUM_STAGES = 2
START_S = 60  # a server that is not up by then hangs: hivemind issue 634
STARTS = 5


# ------------------------------------------------------------------------------ theirs: a server


def run_server(config_path: Path, stage: int, *, each_backward: bool) -> None:
    """Serve one expert until killed; the first line says where it is.

    Server.run forks its handlers after it has started a thread, and a fork may then inherit a lock
    that nobody will release. So what it forks is started here before, while this is the only
    thread that matters.
    """
    import torch
    from hivemind import DHT
    from hivemind.moe import Server
    from hivemind.moe.server.module_backend import ModuleBackend
    from hivemind.utils.tensor_descr import BatchTensorDescriptor

    from swarmrt.config_toml import load_config
    from swarmrt.model.build import build_layers

    torch.set_num_threads(1)
    config = load_config(config_path)
    sequences = config.batch.microbatch * config.batch.microbatches

    class Backend(ModuleBackend):  # type: ignore[misc]
        """Takes an optimizer's step once all sequences of a step have been seen."""

        seen = 0

        def on_backward(self, batch_size: int) -> None:
            self.seen += batch_size
            if each_backward or self.seen == sequences:
                super().on_backward(batch_size)
                self.seen = 0

    dht = DHT(start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    assert config.stages.layers is not None
    first = sum(config.stages.layers[:stage])
    layers = range(first, first + config.stages.layers[stage])
    model = build_layers(config)
    parts = [part for i in layers for part in model.layers[i] if part.name.startswith("blocks")]
    module = torch.nn.Sequential(*(part.build() for part in parts))
    activations = BatchTensorDescriptor(config.model.sequence, config.model.width)
    backend = Backend(
        name=f"stage.{stage}",
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=config.optimizer.lr, fused=True),
        args_schema=(activations,),
        outputs_schema=activations,
        max_batch_size=config.batch.microbatch,
    )
    server = Server(dht, {backend.name: backend}, num_connection_handlers=1, start=False)
    for pool in server.runtime.pools:
        pool.start()
    handlers, server.conn_handlers = server.conn_handlers, []
    for handler in handlers:
        handler.run_in_background(await_ready=True, timeout=START_S)
    where = {"uid": backend.name, "addresses": [str(a) for a in dht.get_visible_maddrs()]}
    print(json.dumps(where), flush=True)
    server.run()


@contextmanager
def serving(config: Path, stage: int, options: list[str]) -> Iterator[str]:
    """A server in a process of its own; what it says of itself."""
    for attempt in range(1, STARTS + 1):
        command = [sys.executable, __file__, "--serve", str(stage), "--config", str(config)]
        command += options
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert server.stdout is not None
            line = first_line(server.stdout)
            if line:
                yield line
                return
        finally:
            end_group(server)
        why = f"exited with {server.returncode}" if line is not None else f"hung for {START_S} s"
        print(f"the server of stage {stage} {why}, start {attempt} of {STARTS}", file=sys.stderr)
    raise SystemExit(f"hivemind's server of stage {stage} did not start in {STARTS} attempts")


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process with its daemon and all that it has forked."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def first_line(stream: IO[str]) -> str | None:
    """None when nothing comes for a minute; empty when the other end is gone."""
    ready, _, _ = select.select([stream], [], [], START_S)
    return stream.readline() if ready else None


# ------------------------------------------------------------------------------ theirs: a client


def their_step_times(config: Path, steps: int, options: list[str]) -> list[float]:
    """Seconds of each step of a chain of two experts. The servers are given these options."""
    with ExitStack() as servers:
        places = [
            servers.enter_context(serving(config, stage, options)) for stage in range(NUM_STAGES)
        ]
        command = [sys.executable, __file__, "--client", "--config", str(config)]
        command += ["--steps", str(steps)]
        client = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = client.communicate("".join(places), timeout=PATIENCE_S)
            if client.returncode:
                raise SystemExit("the client of the baseline failed")
        finally:
            end_group(client)
    times: list[float] = json.loads(output.splitlines()[-1])
    return times


def run_client(config_path: Path, steps: int) -> None:
    """Train; the places of the experts come in by standard input, and step times go out."""
    import torch
    from hivemind import DHT
    from hivemind.moe.client.expert import create_remote_experts
    from hivemind.moe.expert_uid import ExpertInfo
    from hivemind.p2p import PeerID

    from swarmrt.config_toml import load_config
    from swarmrt.data import open_data
    from swarmrt.ids import MicrobatchId
    from swarmrt.model.build import build_layers

    torch.set_num_threads(1)
    places = [json.loads(line) for line in sys.stdin]
    addresses = [address for place in places for address in place["addresses"]]
    dht = DHT(initial_peers=addresses, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    ids = [PeerID.from_base58(place["addresses"][0].rsplit("/", 1)[1]) for place in places]
    infos = [ExpertInfo(place["uid"], peer) for place, peer in zip(places, ids, strict=True)]
    experts = create_remote_experts(infos, dht)

    config = load_config(config_path)
    model = build_layers(config)
    parts = {part.name: part for layer in model.layers for part in layer}
    embed, norm, head = (parts[name].build() for name in ("embed", "norm", "head"))
    chain = torch.nn.Sequential(embed, *experts, norm, head)
    parameters = [p for module in (embed, norm, head) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.optimizer.lr, fused=True)
    data = open_data(config)
    number = config.batch.microbatches

    def train_on(batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        inputs, targets = batch
        loss = model.loss_sum(chain(inputs), targets) / (targets.numel() * number)
        loss.backward()
        return loss.item()

    times = []
    with ThreadPoolExecutor(number) as threads:
        for step in range(steps):
            arrays = [data.microbatch(MicrobatchId(step, index)) for index in range(number)]
            batches = [(torch.from_numpy(inputs), torch.from_numpy(t)) for inputs, t in arrays]
            started = time.perf_counter()
            loss = sum(threads.map(train_on, batches))
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - started)
            print(f"step {step}: loss {loss:.4f}, {times[-1]:.2f} s", file=sys.stderr)
    dht.shutdown()
    print(json.dumps(times), flush=True)
    os._exit(0)  # hivemind's destructors want an event loop, and fail where it is uvloop's


# ------------------------------------------------------------------------------ the comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--each-backward", action="store_true", help="hivemind's own steps")
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        run_server(arguments.config, arguments.serve, each_backward=arguments.each_backward)
    elif arguments.client:
        run_client(arguments.config, arguments.steps)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended
        options = ["--each-backward"] if arguments.each_backward else []
        compare(arguments.steps, arguments.rounds, options)


def compare(steps: int, rounds: int, options: list[str]) -> None:
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "bench.toml"
        config.write_text(CONFIG)
        for number in range(rounds):
            their_times = their_step_times(config, steps, options)[WARM_UP_STEPS:]
            our_times = our_step_times(config, steps, folder / str(number))[WARM_UP_STEPS:]
            theirs.append(TOKENS / statistics.median(their_times))
            ours.append(TOKENS / statistics.median(our_times))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    result = {
        "swarmrt_tokens_per_s": round(statistics.median(ours), 1),
        "hivemind_tokens_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
