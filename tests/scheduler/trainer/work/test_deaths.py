"""The word of one peer that a microbatch ends it."""

from __future__ import annotations

import pytest

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.trainer.work.deaths import ALONE, Deaths
from tests.scheduler.trainer_core import Swarm, member_of


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_that_says_so_again_and_again_ends_a_run_only_where_it_is_alone(replicas: int) -> None:
    """Else anybody who was let in could end it by saying so."""
    swarm = Swarm((1, replicas))
    swarm.run_to(3)
    deaths, member = Deaths(swarm.core.run), member_of(swarm, "s1p0")
    microbatch = MicrobatchId(swarm.version, 0)
    words = [deaths.in_computation(member, microbatch, "it dies") for _ in range(3 * ALONE)]
    first = next((number for number, word in enumerate(words, 1) if word is not None), None)
    assert first == (ALONE if replicas == 1 else None)
