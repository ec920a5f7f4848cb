"""Builders: functions that make a model, named `package.module:function` in a configuration.

A builder is code on this machine. Its module is imported, and so run, because the user has named
it: in a configuration of their own, or with `--allow-model` where that is somebody else's. Then
`check_consent` comes before anything is built.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from swarmrt.config import BUILDER_NAME, RunConfig
from swarmrt.errors import ModelError, UsageError
from swarmrt.model.draws import building, seed_for

Build = Callable[[], nn.Module]
Loss = Callable[[Tensor, Tensor], Tensor]

BUILT_IN = "decoder"
NO_BUILDERS = sys.stdlib_module_names | {"torch"}
"""Packages whose functions run commands, load and compile files, and return no layers."""

NOT_FOUND = (
    "; it must be installed, or lie in PYTHONPATH, in --model-path of `serve` and `generate`, or "
    "in the working folder of other commands"
)

_looked_in: list[str] = []


def look_in(folders: Iterable[Path]) -> None:
    """Have modules of builders found in these folders, after all others: a file that lies there by
    chance never passes for a module of Python's or of a library's."""
    for folder in [str(folder.resolve()) for folder in folders]:
        if folder not in sys.path:
            sys.path.append(folder)
            _looked_in.append(folder)


def look_here(config: RunConfig) -> None:
    """Have what is the user's own in their configuration found in the working folder too."""
    if own_code(config) or ":" in config.wiring.policy:
        look_in([Path.cwd()])


def own_code(config: RunConfig) -> dict[str, str]:
    """Return the names of what a run asks for that is not swarmrt's, and what each is."""
    names = {config.model.kind: "builder"} if config.model.kind != BUILT_IN else {}
    return names | ({config.averaging.strategy: "strategy"} if config.averaging.is_own else {})


def check_names(allowed: Iterable[str]) -> None:
    """Check that these can name builders. Raises UsageError."""
    for name in allowed:
        if not BUILDER_NAME.fullmatch(name):
            raise UsageError(f"--allow-model {name!r}: write package.module:function")


def check_consent(config: RunConfig, allowed: Collection[str], whose: str) -> None:
    """Check that model and strategy are built in, or are among the allowed. Raises ModelError.

    `whose` configuration it is, "run 'x'" for example, is said in the error. Nothing is imported.
    """
    for name, what in own_code(config).items():
        _refuse_libraries(name)
        if name not in allowed:
            raise ModelError(
                f"{whose} asks for the {what} {name}, which is code on your machine; look at it, "
                f"and pass --allow-model {name} if you trust it"
            )


def call_builder(config: RunConfig) -> tuple[list[Build | nn.Module], Loss]:
    """The layers and the loss of the user's builder. Raises ModelError."""
    kind = config.model.kind
    builder = _import_builder(kind)
    try:
        with building(seed_for(config.run.seed, "init")):
            result = builder(**config.model.options)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{kind}: the builder failed: {line_of(error)}") from error
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ModelError(
            f"{kind}: the builder must return (layers, loss), not {type(result).__name__}"
        )
    layers, loss = result
    if not isinstance(layers, Sequence | nn.ModuleList | nn.Sequential) or not len(layers):
        raise ModelError(f"{kind}: layers must be a list with at least one layer")
    if not callable(loss):
        raise ModelError(f"{kind}: loss must be callable, not {type(loss).__name__}")
    for index, layer in enumerate(layers):
        if not callable(layer):
            raise ModelError(
                f"{kind}: layer {index} is {type(layer).__name__}; each must be an nn.Module or "
                "a function that returns one"
            )
    return list(layers), loss


def _import_builder(kind: str) -> Callable[..., Any]:
    """The function, which must be the module's own: what it has imported is somebody else's."""
    module, (module_name, _, name) = imported(kind), kind.partition(":")
    _refuse_another(kind, module_name)
    builder = vars(module).get(name)
    if not callable(builder):
        raise ModelError(f"{kind}: {module_name} has no function {name!r}")
    if isinstance(builder, FunctionType):
        if (builder.__module__, builder.__qualname__) == (module_name, name):
            return builder
    raise ModelError(
        f"{kind}: {name} is not a function that {module_name} defines; a builder is written with "
        "`def` in the module that is named"
    )


def imported(kind: str) -> ModuleType:
    """The builder's module. Raises ModelError."""
    _refuse_libraries(kind)
    module_name = kind.partition(":")[0]
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        hint = NOT_FOUND if _is_missing(module_name, error) else ""
        raise ModelError(f"{kind}: cannot import {module_name}: {line_of(error)}{hint}") from error


def _refuse_another(kind: str, module_name: str) -> None:
    """Refuse an installed package of the name that the user's own file has."""
    package = module_name.partition(".")[0]
    own = PathFinder.find_spec(package, _looked_in)
    used = sys.modules[package].__spec__
    if own is None or own.origin is None or used is None or used.origin == own.origin:
        return
    raise ModelError(
        f"{kind}: {own.origin} is meant, but {package} is also the name of {used.origin}, which "
        "comes first; give yours another name"
    )


def _is_missing(module_name: str, error: BaseException) -> bool:
    """Return whether this very module was not found, and not one that it imports."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _refuse_libraries(kind: str) -> None:
    package = kind.partition(":")[0].partition(".")[0]
    if package in NO_BUILDERS:
        what = "has no builders of models, and no strategies"
        raise ModelError(f"{kind}: the package {package} {what}")


def line_of(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
