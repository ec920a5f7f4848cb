"""The fingerprint of a builder's code: its module, and all of the user's own that it can import.

Imports are read off the sources, those inside of functions too. So nothing of the code is run, and
what a process has imported before makes no difference. Not seen are modules whose names are made
when the code runs, compiled extensions, and files that it reads.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.builders import BUILT_IN, imported

NOT_OWN = sys.stdlib_module_names | {"torch", "swarmrt"}
INSTALLED = {"site-packages", "dist-packages"}
IMPORTERS = {"import_module", "__import__"}  # functions that are given a module's name


def code_of(config: RunConfig) -> str | None:
    """Return 32 hex digits of the builder's code; None for the built-in decoder.

    Call it before the code is imported: it stays what it was then, as what runs does. Raises
    ModelError when the builder's module is not found.
    """
    return None if config.model.kind == BUILT_IN else _digest_of(config.model.kind)


def check_code(config: RunConfig, whose: str) -> None:
    """Check that the builder's code here is the run's. Raises ModelError."""
    kind, code = config.model.kind, config.model.code
    if code is not None and code_of(config) != code:
        files = ", ".join(str(source) for _, source in sorted(sources_of(kind).items()))
        raise ModelError(
            f"{whose}: the code of the builder {kind}, which is in {files}, is not what the "
            "trainer has; get the version that the run's owner has and start this peer again, or "
            "its gradients would be of another model"
        )


@cache
def _digest_of(kind: str) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name, source in sorted(sources_of(kind).items()):
        text = source.read_bytes()
        found.update(f"{name}\0{len(text)}\0".encode() + text)
    return found.hexdigest()


def sources_of(kind: str) -> dict[str, Path]:
    """Return the sources of a builder's module and of what it can import, by their modules' names.

    Counted is what lies in the folder of its outermost package, or in its own; of what is installed
    that package alone. Raises ModelError when the builder's module is not found.
    """
    module = kind.partition(":")[0]
    name, source = (list(_way_to(module)) or [("", None)])[-1]
    if name != module or source is None:
        imported(kind)  # which says why, or it is no file
        return {}
    home = source.parents[name.count(".") + (source.stem == "__init__")]
    top = module.partition(".")[0] if INSTALLED & set(home.parts) else ""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        for name, source in _way_to(waiting.pop()):
            if source is None or name in found:
                continue
            if _is_own(source, home) and top in ("", name.partition(".")[0]):
                found[name] = source
                waiting += _imports(name, source)
    return found


def _is_own(source: Path, home: Path) -> bool:
    """Return whether it is the user's own: an environment may lie in the folder too."""
    return home in source.parents and not INSTALLED & set(source.relative_to(home).parts)


def _way_to(module: str) -> Iterator[tuple[str, Path | None]]:
    """Yield the packages that a module is in and the module, as far as they are found, each with
    its source if it has one. Nothing is imported."""
    name, *inner = module.split(".")
    spec = _top(name) if name not in NOT_OWN else None
    while spec is not None:
        source = Path(spec.origin).absolute() if spec.has_location and spec.origin else None
        is_text = source is not None and source.suffix == ".py" and source.is_file()
        yield name, source if is_text else None
        if not inner or spec.submodule_search_locations is None:
            return
        # by its last name alone: a namespace in one that is not imported is not found by its whole
        spec = PathFinder.find_spec(inner[0], list(spec.submodule_search_locations))
        name, inner = f"{name}.{inner[0]}", inner[1:]


def _top(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: one in memory that comes from nowhere
        return None


def _imports(name: str, source: Path) -> Iterator[str]:
    """Yield the names that a module imports anywhere, some of which may be no modules'."""
    package = name if source.stem == "__init__" else name.rpartition(".")[0]
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return  # it cannot be imported either
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _absolute(module or "", package, level)
                yield from (f"{base}.{alias.name}" for alias in names if base)
            case ast.Call(func=function, args=[ast.Constant(value=str(literal)), *_]):
                if getattr(function, "id", getattr(function, "attr", "")) in IMPORTERS:
                    yield literal


def _absolute(module: str, package: str, level: int) -> str:
    """Return the whole name of a module that is named from within a package; empty for none."""
    if not level:
        return module
    outer = package.split(".")[: max(0, 1 + package.count(".") - (level - 1))] if package else []
    return ".".join([*outer, module] if module and outer else outer)
