"""A gradient that is not finite is told of where it is made, and where it was given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from swarmrt.config_toml import load_config
from swarmrt.ids import MicrobatchId
from swarmrt.model.stage import Stage
from swarmrt.runtime.computing.computations import Computations
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.flaws import GIVEN, MADE, Flaws
from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.peer.serve_options import ServeOptions
from swarmrt.runtime.state.copying import Copying
from swarmrt.scheduler.events import BackwardDone, ComputeFailed, ForwardDone, WeightGradientsDone
from swarmrt.scheduler.instructions import RunBackward, RunWeightGradients
from swarmrt.trust.joining_line import JoinLine
from tests.trust.test_statements import signer

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


MODEL = ["model.width=512", "model.heads=8", "model.layers=3", "model.sequence=128"]
GOOD_ONE, BAD_ONE = MicrobatchId(0, 0), MicrobatchId(0, 1)


def middle_stage() -> Computations:
    config = load_config(None, [*MODEL, "batch.microbatch=1"], {}).with_stage_layers((1, 1, 1))
    stage, transfers = Stage(config, 1, "cpu"), Transfers(torch.device("cpu"))
    options = ServeOptions(JoinLine(signer().run, ()), (1,))
    copying, fitting = Copying(1, transfers), Fitting(config, 1)
    return Computations(config, stage, transfers, copying, fitting, options)


def computed(work: Callable[[], Any]) -> Any:
    return work()


def test_what_two_halves_have_added_is_looked_at_once_all_of_it_is_there() -> None:
    computations = middle_stage()
    for microbatch in (GOOD_ONE, BAD_ONE):
        computations.keep_input(microbatch, torch.ones(1, 128, 512), torch.empty(0))
        assert isinstance(computed(computations.forward(microbatch)), ForwardDone)
    for microbatch in (GOOD_ONE, BAD_ONE):
        computations.keep_output_grad(microbatch, torch.ones(1, 128, 512))
        if microbatch is BAD_ONE:
            computations.stage.gradients(0)[0] = math.inf
        half = computations.backward(RunBackward(microbatch, accumulate=True, later=True))
        assert isinstance(computed(half), BackwardDone)
        other_half = computed(computations.weight_gradients(RunWeightGradients(microbatch)))
        if microbatch is GOOD_ONE:
            assert isinstance(other_half, WeightGradientsDone)
        else:
            assert isinstance(other_half, ComputeFailed) and other_half.not_finite
