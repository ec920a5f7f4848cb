"""Probes: what a process answers, and what the one who asks makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import Message, Probe, Probed
from swarmrt.runtime.limits.quotas import MAX_PROBE_BYTES
from swarmrt.runtime.links.probing import BUDGET, BUDGET_OF_ONE, Answers

DOCTOR = PeerId("doctor")


class Asked:
    """One who answers, and what was sent."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.answers = Answers(lambda: self.now_s)
        self.sent: list[tuple[Probed, int]] = []

    def ask(self, answer_bytes: int, size: int = 0, who: PeerId = DOCTOR) -> tuple[Probed, int]:
        """The answer, and how many bytes come with it."""
        payload = (torch.zeros(size, dtype=torch.uint8),)
        self.answers.answer(who, Probe(7, answer_bytes), payload, self._send)
        return self.sent[-1]

    def _send(self, to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        assert isinstance(message, Probed)
        self.sent.append((message, sum(tensor.nbytes for tensor in tensors)))


def test_answer_is_as_long_as_asked_for_but_not_longer_than_allowed() -> None:
    asked = Asked()
    for wanted, given in ((0, 0), (1000, 1000), (-5, 0), (1 << 50, MAX_PROBE_BYTES)):
        probed, came = asked.ask(wanted)
        assert (probed.number, probed.affordable, came) == (7, True, given)


def test_who_asks_too_much_gets_no_payload_for_a_while() -> None:
    asked = Asked()
    number = int(BUDGET_OF_ONE.most) // MAX_PROBE_BYTES
    answers = [asked.ask(MAX_PROBE_BYTES) for _ in range(2 * number)]
    assert [came for _, came in answers if came] == [MAX_PROBE_BYTES] * (number - 1)
    assert all(probed.affordable == bool(came) for probed, came in answers)
    asked.now_s += 10
    assert asked.ask(MAX_PROBE_BYTES)[1] == MAX_PROBE_BYTES


def test_what_comes_with_a_probe_counts_and_nothing_is_gained_by_nonsense() -> None:
    asked = Asked()
    number = 1 + int(BUDGET_OF_ONE.most) // MAX_PROBE_BYTES
    asked_for_less = [asked.ask(-(1 << 60), MAX_PROBE_BYTES)[0] for _ in range(number)]
    assert not asked_for_less[-1].affordable


def test_one_who_asks_too_much_leaves_something_for_others() -> None:
    asked = Asked()
    while asked.ask(MAX_PROBE_BYTES)[0].affordable:
        pass
    others = [PeerId(f"other {n}") for n in range(30)]
    came = [asked.ask(1 << 20, who=other)[1] for other in others]
    assert came[0] == 1 << 20  # it was not all of it
    assert came[-1] == 0 and sum(came) < BUDGET.most  # in all there is a bound as well
