"""The trainer's answers to those who ask what it would decide from.

Anybody who is invited may ask. It is no event for the core, and what is told is kept for as long as
the core waits between two looks, so that asking takes little from the one who trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import Facts, GetFacts, Idle, Message
from swarmrt.runtime.limits.quotas import MAX_PROBE_BYTES
from swarmrt.runtime.limits.rates import Bucket, Buckets, Rate
from swarmrt.runtime.observing.facts_in_bytes import facts_in_bytes
from swarmrt.scheduler.trainer.core import TrainerCore

BUDGET = Rate(8, 2)  # answers: of all who ask together
BUDGET_OF_ONE = Rate(3, 0.5)  # of one
BYTES_BUDGET = Rate(16 << 20, 2 << 20)  # of what all are told
NOTHING = torch.zeros(0, dtype=torch.uint8)

Send = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]


class FactsTold:
    """The answers of a trainer."""

    def __init__(self, core: TrainerCore, now: Callable[[], float] = time.monotonic) -> None:
        """`now` gives seconds, on the core's clock."""
        self._core, self._now = core, now
        self._budget, self._bytes = Bucket(BUDGET, now()), Bucket(BYTES_BUDGET, now())
        self._budgets: Buckets[PeerId] = Buckets(BUDGET_OF_ONE)
        self._kept: tuple[Idle, torch.Tensor] | None = None
        self._kept_until = 0.0

    def answer(self, sender: PeerId, question: GetFacts, send: Send) -> None:
        """Tell the facts as they are, or were an instant ago; or that too much was asked."""
        now, run = self._now(), self._core.run
        share = run.settings.standby_share
        affordable = self._budgets.take(sender, 1, now) and self._budget.take(1, now)
        idle, payload = self._told(now) if affordable else ("", NOTHING)
        if affordable and not self._bytes.take(payload.nbytes, now):
            affordable, payload = False, NOTHING
        send(sender, Facts(question.number, affordable, run.version, idle, share), (payload,))

    def _told(self, now: float) -> tuple[Idle, torch.Tensor]:
        if self._kept is None or now >= self._kept_until:
            arranging = self._core.arranging
            idle = arranging.why_idle()
            data = b"" if idle else facts_in_bytes(arranging.facts(now))
            if len(data) > MAX_PROBE_BYTES:
                idle, data = "large", b""
            payload = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else NOTHING
            self._kept = idle, payload
            self._kept_until = now + arranging.look_every_s
        return self._kept
