"""A round of averaging beside hivemind's DecentralizedAverager, on this machine.

    .venv/bin/python scripts/bench_averaging_rival.py [--rounds 5] [--turns 3]

Three processes on loopback, each with as many float32 values, one torch thread each, and no
compression. Ours is a swarm of one stage with three replicas: a round is timed by the trainer's
log, from Prepare to the last Prepared, when every replica holds the whole mean and has told its
digest. Theirs are three averagers in processes of their own, each with its own DHT. A round is
timed from `step` to its result at the slowest member, as whoever calls it waits; and, apart from
that, from when the group is there, so without matchmaking, whose least time is one second here.
What is told is whether the members' values are equal to the bit, too.

The two take turns, and the first round of each turn does not count. The last line is JSON: medians
of each turn, and `ratio`, ours over theirs: the median over the pairs of turns;
`ratio_without_matchmaking` gives theirs that time for nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

MEMBERS = 3
MATCHMAKING_S = 1.0
PATIENCE_S = 240.0
POLL_S = 0.002
WIDTH = 8

CONFIG = """
[run]
name = "bench-averaging"
steps = 100000
[model]
width = 8
sequence = 8
vocab = 256
[stages]
layers = [2]
[batch]
microbatch = 1
microbatches = 6
[optimizer]
warmup_steps = 0
schedule = "constant"
lr = 1e-4
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
"""


# ------------------------------------------------------------------------------ ours


def our_round_times(values: int, rounds: int, folder: Path) -> list[float]:
    """Seconds of each round of a stage's three replicas."""
    from swarmrt import lab
    from swarmrt.lab.bench.emulation import MODEL

    text, config = folder / "text.txt", folder / "bench.toml"
    text.write_text("All work and no play makes a dull average.\n" * 400)
    config.write_text(CONFIG)
    overrides = {
        "model.kind": MODEL,
        "model.layers": 2,
        "model.options": f"{{layers = 2, vocab = 256, width = {WIDTH}, idle = {values // 2}}}",
        "data.source": text,
    }
    run_dir = folder / "run"
    with lab.LocalSwarm(
        config, [MEMBERS], run_dir=run_dir, overrides=overrides, threads=1
    ) as swarm:
        swarm.wait(rounds + 2, PATIENCE_S)
        for part in [swarm.trainer, *swarm.peers()]:
            part.kill()
    return times_of_rounds(run_dir / "trainer" / "events.jsonl")[:rounds]


def times_of_rounds(log: Path) -> list[float]:
    """Seconds from Prepare to the last Prepared, of each round in which all members took part."""
    from swarmrt.messages import Prepare, Prepared
    from swarmrt.observe.log import what_happened
    from swarmrt.scheduler.events import Received
    from swarmrt.scheduler.instructions import Send

    began: dict[int, float] = {}
    ended: defaultdict[int, list[float]] = defaultdict(list)
    for record in what_happened(log):
        match record.event:
            case Received(_, Prepared() as prepared):
                ended[prepared.round].append(record.now)
        for instruction in record.instructions:
            match instruction:
                case Send(_, Prepare() as prepare):
                    began.setdefault(prepare.round, record.now)
    return [
        max(ended[number]) - at for number, at in began.items() if len(ended[number]) == MEMBERS
    ]


# ------------------------------------------------------------------------------ theirs


def run_averager(values: int, number: int, peers: list[str]) -> None:
    """Average whenever a line comes in; what came of it goes out."""
    import torch
    from hivemind import DHT
    from hivemind.averaging import DecentralizedAverager
    from hivemind.averaging.control import AveragingStage

    torch.set_num_threads(1)
    tensor = torch.randn(values, generator=torch.Generator().manual_seed(number))
    dht = DHT(initial_peers=peers, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    averager = DecentralizedAverager(
        [tensor],
        dht,
        start=True,
        prefix="bench",
        target_group_size=MEMBERS,
        min_group_size=MEMBERS,
        min_matchmaking_time=MATCHMAKING_S,
        request_timeout=0.9 * MATCHMAKING_S,  # less, as its matchmaking wants
        daemon=True,
    )
    print(json.dumps([str(address) for address in dht.get_visible_maddrs()]), flush=True)
    for _ in sys.stdin:
        began = grouped = time.perf_counter()
        control = averager.step(wait=False, timeout=PATIENCE_S)
        while not control.done():
            if control.stage.value < AveragingStage.RUNNING_ALLREDUCE.value:
                grouped = time.perf_counter()
            time.sleep(POLL_S)
        ended = time.perf_counter()
        if control.result() is None:
            raise SystemExit("hivemind's round failed")
        with averager.get_tensors() as tensors:
            digest = hashlib.sha256(tensors[0].numpy().tobytes()).hexdigest()
        found = {"whole_s": ended - began, "reduce_s": ended - grouped, "digest": digest}
        print(json.dumps(found), flush=True)
    os._exit(0)  # hivemind's destructors want an event loop


def their_rounds(values: int, rounds: int) -> list[list[dict[str, float | str]]]:
    """Return what each member says of each round."""
    members: list[subprocess.Popen[str]] = []

    def lose_patience() -> None:
        for member in members:
            member.kill()

    impatience = threading.Timer(2 * PATIENCE_S, lose_patience)
    impatience.start()
    try:
        peers: list[str] = []
        for number in range(MEMBERS):
            command = [sys.executable, __file__, "--values", str(values)]
            command += ["--averager", str(number), *(word for p in peers for word in ("--peer", p))]
            members.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            peers += json.loads(said_by(members[-1]))
        found = []
        for _ in range(rounds):
            for member in members:
                assert member.stdin is not None
                member.stdin.write("\n")
                member.stdin.flush()
            found.append([json.loads(said_by(member)) for member in members])
        return found
    finally:
        impatience.cancel()
        for member in members:
            end_group(member)


def said_by(member: subprocess.Popen[str]) -> str:
    """Return its next line."""
    assert member.stdout is not None
    line = member.stdout.readline()
    if not line:
        raise SystemExit("one of hivemind's averagers has ended, or hung")
    return line


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process with its daemon and all that it has forked."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ------------------------------------------------------------------------------ the comparison


def compare(values: int, rounds: int, turns: int) -> dict[str, object]:
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    reduces: list[list[float]] = []
    are_equal = True
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as name:
            ours.append(our_round_times(values, rounds, Path(name))[1:])
        found = their_rounds(values, rounds)[1:]
        theirs.append(slowest(found, "whole_s"))
        reduces.append(slowest(found, "reduce_s"))
        are_equal &= all(len({member["digest"] for member in members}) == 1 for members in found)
    medians = [list(map(statistics.median, turn)) for turn in (ours, theirs, reduces)]
    our_s, their_s, reduce_s = medians
    ratios = [mine / other for mine, other in zip(our_s, their_s, strict=True)]
    without = [mine / other for mine, other in zip(our_s, reduce_s, strict=True)]
    return {
        "values": values,
        "rounds": sum(map(len, ours)),
        "swarmrt_s": [round(seconds, 3) for seconds in our_s],
        "hivemind_s": [round(seconds, 3) for seconds in their_s],
        "hivemind_without_matchmaking_s": [round(seconds, 3) for seconds in reduce_s],
        "hivemind_equal_to_the_bit": are_equal,
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 4),
        "ratio_without_matchmaking": round(statistics.median(without), 4),
    }


def slowest(rounds: list[list[dict[str, float | str]]], what: str) -> list[float]:
    """Return the seconds of each round at the member that took longest."""
    return [max(float(member[what]) for member in members) for members in rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="of each")
    parser.add_argument("--averager", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="append", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.averager is not None:
        run_averager(arguments.values, arguments.averager, arguments.peer)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that averagers are ended
    print(json.dumps(compare(arguments.values, arguments.rounds, arguments.turns)))


if __name__ == "__main__":
    main()
