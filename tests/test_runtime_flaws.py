"""A gradient that is not finite is told of where it is made, and where it was given."""

from __future__ import annotations

import math

import pytest
import torch

from swarmrt.runtime.flaws import GIVEN, MADE, Flaws
from swarmrt.runtime.transfers import Transfers

GOOD = torch.ones(5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_whatever_is_not_finite_is_found(bad: float, dtype: torch.dtype) -> None:
    transfers = Transfers(torch.device("cpu"))
    spoiled = GOOD.to(dtype).clone()
    spoiled[3] = bad
    assert Flaws(transfers, given=GOOD, made=GOOD, added=GOOD).told() == ""
    assert Flaws(transfers).told() == ""
    assert Flaws(transfers, given=spoiled, made=spoiled, added=spoiled).told() == GIVEN
    assert Flaws(transfers, given=GOOD, made=spoiled, added=GOOD).told() == MADE
    assert Flaws(transfers, given=GOOD, made=None, added=spoiled).told() == MADE
    transfers.close()
