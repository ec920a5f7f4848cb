"""The floors of the house: imports go down only, without circles."""

from __future__ import annotations

import ast
import configparser
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "swarmrt": 0,
    "swarmrt.ids": 0,
    "swarmrt.errors": 0,
    "swarmrt.foreign": 0,
    "swarmrt.log_files": 0,
    "swarmrt.log_writer": 0,
    "swarmrt.config": 0,
    "swarmrt.config_toml": 0,
    "swarmrt.run_identity": 0,
    "swarmrt.messages": 0,
    "swarmrt.permissions": 0,
    "swarmrt.recorded": 0,
    "swarmrt.scheduler": 1,
    "swarmrt.kernels": 1,
    "swarmrt.averaging": 1,
    "swarmrt.wire": 2,
    "swarmrt.model": 2,
    "swarmrt.trust": 2,
    "swarmrt.data": 1,
    "swarmrt.sim": 3,
    "swarmrt.runtime": 3,
    "swarmrt.observe": 4,
    "swarmrt.lab": 5,
    "swarmrt.check_gpu": 6,
    "swarmrt.cli": 6,
    "swarmrt.__main__": 7,
}
FORBIDDEN = {  # by package: what it must not import, however low that is
    "swarmrt.scheduler": {"torch", "asyncio", "socket", "time", "logging", "hivemind", "numpy"},
    "swarmrt.kernels": {"asyncio", "socket", "hivemind"},
    "swarmrt.averaging": {"asyncio", "socket", "hivemind"},
    "swarmrt.model": {"asyncio", "socket", "hivemind"},
    "swarmrt.data": {"asyncio", "socket", "hivemind"},
    "swarmrt.trust": {"asyncio", "socket", "hivemind", "torch", "logging"},
    "swarmrt.wire": {"asyncio", "socket", "hivemind"},
    "swarmrt.sim": {"torch", "asyncio", "socket", "time", "hivemind"},
}


def sources() -> dict[str, Path]:
    files = [*ROOT.glob("swarmrt/**/*.py")]
    files += [*ROOT.glob("kernels/*.py"), *ROOT.glob("scheduler/**/*.py")]
    modules = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[:1] != ("swarmrt",):
            parts = ("swarmrt", *parts)
        modules[".".join(parts).removesuffix(".__init__")] = file
    return modules


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = sources()


def place(module: str) -> str:
    return max((p for p in FLOORS if module == p or module.startswith(p + ".")), key=len)


def test_every_module_has_a_floor() -> None:
    unplaced = [module for module in MODULES if place(module) == "swarmrt" != module]
    assert not unplaced, f"give these a floor: {unplaced}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    here = place(module)
    for imported in imports_of(MODULES[module]):
        assert imported.split(".")[0] not in FORBIDDEN.get(here, set()), f"imports {imported}"
        if imported in MODULES and place(imported) != here:
            below = FLOORS[place(imported)] < FLOORS[here] or FLOORS[here] == 0  # words
            assert below, f"{module} imports {imported}, which is not below it"


def test_no_circles() -> None:
    graph = {
        module: {i for i in imports_of(file) if i in MODULES and i != module}
        for module, file in MODULES.items()
    }
    for module, imported in graph.items():
        imported -= {parent for parent in graph if module.startswith(parent + ".")}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_one_file_chooses_how_a_seat_makes_versions() -> None:
    """All others, work and membership among them, ask `updating.strategy`."""
    updating = "swarmrt.scheduler.peer.updating"
    ways = (f"{updating}.sync", f"{updating}.averaging")
    choosing = {
        module
        for module, file in MODULES.items()
        if not module.startswith(ways) and any(i.startswith(ways) for i in imports_of(file))
    }
    assert choosing == {"swarmrt.scheduler.peer.seat_core"}


def test_commands_begin_without_what_only_some_of_them_need() -> None:
    """torch and hivemind take seconds to be imported, also for `swarmrt config`."""
    code = (
        "import sys, swarmrt.cli.app; print({'torch', 'hivemind', 'swarmrt.lab'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_setup_lists_every_package() -> None:
    """A package that setup.cfg leaves out is missing from a wheel, and from nothing else."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {
        module if file.name == "__init__.py" else module.rpartition(".")[0]
        for module, file in MODULES.items()
    }
    assert setup["options"]["packages"].split() == sorted(packages)
