"""The fingerprint of a builder's code: its module, and what that uses of its own folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.builders import BUILT_IN, imported


def code_of(config: RunConfig) -> str | None:
    """Return 32 hex digits of the builder's code; None for the built-in decoder.

    Counted are the module, and the modules of its own package or folder that it, or one of them,
    has anything from. Raises ModelError when the builder cannot be imported.
    """
    kind = config.model.kind
    if kind == BUILT_IN:
        return None
    module = imported(kind)
    found = hashlib.blake2b(digest_size=16)
    for name, source in sorted((m.__name__, _source(m)) for m in _with_its_own(module)):
        text = source.read_bytes() if source is not None else b""
        found.update(f"{name}\0{len(text)}\0".encode() + text)
    return found.hexdigest()


def check_code(config: RunConfig, whose: str) -> None:
    """Check that the builder's code here is the run's. Raises ModelError."""
    if config.model.code is not None and code_of(config) != config.model.code:
        raise ModelError(
            f"{whose}: the code of the builder {config.model.kind} is not the trainer's; get the "
            "version that the run's owner has, or its gradients would be of another model"
        )


def _with_its_own(module: ModuleType) -> Iterator[ModuleType]:
    source = _source(module)
    folder = _folder(module, source) if source is not None else None
    waiting, seen = [module], {module.__name__}
    while waiting:
        one = waiting.pop()
        yield one
        for value in list(vars(one).values()):
            name = value.__name__ if isinstance(value, ModuleType) else _home(value)
            if name in seen or folder is None or name not in sys.modules:
                continue
            seen.add(name)
            if _lies_in(folder, sys.modules[name]):
                waiting.append(sys.modules[name])


def _lies_in(folder: Path, module: ModuleType) -> bool:
    """Return whether it is the user's own: an environment may lie in the folder too."""
    source = _source(module)
    if source is None or folder not in source.parents:
        return False
    return "site-packages" not in source.relative_to(folder).parts


def _home(value: object) -> str:
    """Return the name of the module that a function or class is defined in."""
    name = getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


def _source(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if isinstance(file, str) else None
    return path if path is not None and path.is_file() else None


def _folder(module: ModuleType, source: Path) -> Path:
    """Return the folder of the module's outermost package, or its own."""
    depth = module.__name__.count(".") + (source.stem == "__init__")
    return source.parents[depth - 1] if depth else source.parent
