"""Both worlds do all that a core may ask of them, and a core asks nothing else."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.trainer.trainer import Trainer
from swarmrt.scheduler import instructions
from swarmrt.scheduler.instructions import (
    ALL_INSTRUCTIONS,
    PeerInstruction,
    Report,
    StartDeadline,
    Stop,
    TrainerInstruction,
)
from swarmrt.sim.peer.peer import SimulatedPeer
from swarmrt.sim.swarm.trainer import SimulatedTrainer

CORES = Path(instructions.__file__).parent
BY_THE_TURNS = {StartDeadline}  # carried out by both worlds' processes, whatever the core
SIDES: dict[str, tuple[set[type[Any]], Any, Any]] = {  # what is asked, and who does it
    "peer": ({*get_args(PeerInstruction)}, SimulatedPeer._act, Peer.__init__),
    "trainer": ({*get_args(TrainerInstruction)}, SimulatedTrainer._act, Trainer.act),
}


def named_in(tree: ast.AST) -> set[type[Any]]:
    """The instructions that some code names; a base class stands for all of its kinds."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    named = [getattr(instructions, name, None) for name in names]
    kinds = tuple(kind for kind in named if isinstance(kind, type))
    return {kind for kind in ALL_INSTRUCTIONS if issubclass(kind, kinds)}


def handled_by(function: Callable[..., Any]) -> set[type[Any]]:
    return named_in(ast.parse(textwrap.dedent(inspect.getsource(function))))


def made_by(side: str) -> Iterator[tuple[Path, set[type[Any]]]]:
    """The instructions that the files of a side's core make."""
    for file in sorted(CORES.glob(f"{side}/**/*.py")):
        calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        yield file, {kind for call in calls for kind in named_in(call.func)}


@pytest.mark.parametrize("side", SIDES)
def test_both_worlds_do_what_a_core_asks_for(side: str) -> None:
    asked, simulated, real = SIDES[side]
    assert handled_by(simulated) >= asked - BY_THE_TURNS
    assert handled_by(real) >= asked - BY_THE_TURNS - {Stop}  # which the process takes itself


@pytest.mark.parametrize("side", SIDES)
def test_a_core_asks_for_nothing_else(side: str) -> None:
    made = set()
    for file, kinds in made_by(side):
        assert kinds <= SIDES[side][0], file
        made |= kinds
    assert made | {Stop, StartDeadline} == SIDES[side][0], "nobody asks for the others"


def test_reports_are_the_trainers_or_say_why_a_peer_does_not_serve() -> None:
    reports = {kind for kind in ALL_INSTRUCTIONS if issubclass(kind, Report)}
    of_peers = {kind.__name__ for kind in reports & SIDES["peer"][0]}
    assert of_peers == {"ReportLeftOut", "ReportWaitsFor"}
