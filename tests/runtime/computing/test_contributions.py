"""A peer whose replica makes steps of its own: what it gives a round stays as it was fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from swarmrt.config_toml import load_config
from swarmrt.ids import MicrobatchId
from swarmrt.model.decoupled import Decoupled
from swarmrt.model.stage import Stage
from swarmrt.model.weights import LocalReport
from swarmrt.runtime.computing.computations import Computations
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.local_work import local_work
from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.peer.serve_options import ServeOptions
from swarmrt.runtime.state.copying import Copying
from swarmrt.scheduler.events import BackwardDone, Contributed, ForwardDone, Stepped
from swarmrt.scheduler.instructions import Contribute, RunBackward, StepOptimizer
from swarmrt.scheduler.local_work import MOST_DRIFT, NO_LOCAL_WORK
from swarmrt.trust.joining_line import JoinLine
from tests.trust.test_statements import signer

SETTINGS = [
    "model.width=16", "model.heads=2", "model.kv_heads=2", "model.layers=3", "model.sequence=8",
    "batch.microbatch=1", "batch.microbatches=4", "averaging.strategy=async",
    "averaging.local_batch=2", "optimizer.warmup_steps=0",
]  # fmt: skip


DEMO = [
    "averaging.strategy=demo", "optimizer.kind=sgd", "optimizer.clip_norm=0",
]  # fmt: skip


def middle_stage(settings: list[str] = SETTINGS) -> Computations:
    config = load_config(None, settings, {}).with_stage_layers((1, 1, 1))
    transfers = Transfers(torch.device("cpu"))
    options = ServeOptions(JoinLine(signer().run, ()), (1,))
    around = (transfers, Copying(1, transfers), Fitting(config, 1), options)
    return Computations(config, Stage(config, 1, "cpu"), *around)


def done(work: Callable[[], Any]) -> Any:
    return work()


def add(computations: Computations, microbatch: MicrobatchId) -> None:
    torch.manual_seed(microbatch.index)
    computations.keep_input(microbatch, torch.randn(1, 8, 16), torch.empty(0))
    assert isinstance(done(computations.forward(microbatch)), ForwardDone)
    computations.keep_output_grad(microbatch, torch.randn(1, 8, 16))
    ran = done(computations.backward(RunBackward(microbatch, True, own_step=2)))
    assert isinstance(ran, BackwardDone)
    computations.forget(microbatch)


def test_contribution_stays_as_it_is_while_the_step_after_goes_on() -> None:
    peer = middle_stage()
    before = peer.stage.digest()
    for index in range(3):
        add(peer, MicrobatchId(0, index))
    assert done(peer.contribute(Contribute(0, 7))) == Contributed(0, 7)
    given = torch.cat([peer.given(0, 7, index, 2) for index in (0, 1)])
    assert len(given) == peer.stage.contribution_numel(0) and given.abs().max() > 0
    kept = given.clone()
    for index in range(4):
        add(peer, MicrobatchId(1, index))
    assert torch.equal(peer.given(0, 7, 0, 1), kept)
    assert peer.stage.digest() == before, "the anchor is as it was"
    stepped, copied = peer.step(StepOptimizer(0, 7, 1.0, False), kept / 3)()
    assert isinstance(stepped, Stepped) and copied is None
    assert stepped.version == 1 and stepped.digest not in ("", before)
    assert stepped.local.steps >= 3, "two of step 0, and of the step after"
    assert 0 <= stepped.local.late <= 1 and 0 < stepped.local.drift < 1
    peer.drop_contribution(0, 7)
    assert not torch.equal(peer.given(0, 7, 0, 1), kept)


@pytest.mark.parametrize("applied", [7, 8])
def test_momentum_loses_what_was_given_to_the_round_that_is_applied(applied: int) -> None:
    """A round that this peer has given nothing takes nothing from it."""
    peer = middle_stage([*SETTINGS, *DEMO])
    add(peer, MicrobatchId(0, 0))
    done(peer.contribute(Contribute(0, 7)))
    given = torch.cat([peer.given(0, 7, index, 2) for index in (0, 1)])
    assert given.dtype == torch.uint8 and given.dim() == 2
    signs = torch.ones(peer.stage.num_parameters)
    stepped, _ = peer.step(StepOptimizer(0, applied, 1.0, False), signs)()
    assert isinstance(stepped, Stepped) and stepped.local == NO_LOCAL_WORK
    weights = peer.stage._weights
    assert isinstance(weights, Decoupled)
    assert bool(weights._momentum.any()) == (applied == 7)


def test_weights_that_are_not_finite_are_as_far_off_as_can_be() -> None:
    assert local_work(LocalReport()) is NO_LOCAL_WORK
    assert local_work(LocalReport(2, 0.5, float("nan"))).drift == MOST_DRIFT
    assert local_work(LocalReport(2, 0.5, float("inf"))).drift == MOST_DRIFT
    assert local_work(LocalReport(2, 0.5, 0.25)) == (2, 0.5, 0.25)
