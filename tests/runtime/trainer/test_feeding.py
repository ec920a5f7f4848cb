"""What goes over all of the data keeps no trainer's loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmrt.config_toml import parse_config
from swarmrt.data.batches import Data
from swarmrt.data.codec import open_codec
from swarmrt.data.sources import read_tokens
from swarmrt.ids import MicrobatchId
from swarmrt.runtime.trainer.feeding import Feeding
from swarmrt.trust.sealing import unseal
from tests.trust.test_statements import signer

STEPS, MICROBATCHES = 60, 2  # of four epochs


class Watched(Data):
    """Data that tell which threads have gone over all of them."""

    def __init__(self, *given: Any) -> None:
        self.threads: list[str] = []
        super().__init__(*given)

    def digest(self) -> bytes:
        self.threads.append(threading.current_thread().name)
        return super().digest()

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        self.threads.append(threading.current_thread().name)
        return super()._shuffled(epoch)


def watched(folder: Path) -> Watched:
    source = folder / "tokens.npy"
    np.save(source, np.arange(900, dtype=np.uint16))
    config = parse_config(
        {
            "model": {"sequence": 8, "vocab": 1000},
            "batch": {"microbatch": 3, "microbatches": MICROBATCHES},
            "data": {"source": str(source)},
        },
        "test",
    )
    codec = open_codec(config)
    return Watched(config, codec, *read_tokens(config, codec))


def test_loop_shuffles_nothing_and_batches_are_the_datas(tmp_path: Path) -> None:
    data = watched(tmp_path)

    async def feed() -> None:
        feeding = await Feeding.open(data, signer(), step=0)
        for step in range(STEPS):
            for index in range(MICROBATCHES):
                microbatch = MicrobatchId(step, index)
                ids, sealed = feeding.batch(microbatch)
                targets = unseal(feeding.targets_key, microbatch, bytes(sealed.numpy().data))
                inputs, expected = data.microbatch(microbatch)
                assert (ids.numpy() == inputs).all() and targets == expected.tobytes()
            if feeding._shuffling is not None:
                await feeding._shuffling  # it is done long before the epoch is over

    asyncio.run(feed())
    assert data.epoch_of(MicrobatchId(STEPS - 1, 1)) >= 3
    assert len(data.threads) >= 5 and threading.main_thread().name not in data.threads
