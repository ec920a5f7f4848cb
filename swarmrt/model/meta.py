"""Building layers for their shapes alone: on torch's meta device, where nothing takes memory.

The user's code may keep tensors beside its layers, in a module's constants or a cache. Made here
they would have no values, and be used later. So its modules are imported anew for this, and these
copies are forgotten.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from swarmrt.config import RunConfig
from swarmrt.model.builders import BUILT_IN, imported
from swarmrt.model.code import sources_of

META = torch.device("meta")
T = TypeVar("T")

log = logging.getLogger("swarmrt.meta")


def shapes_of(config: RunConfig, build: Callable[[], T]) -> T:
    """Return what this makes of the configuration's model, of shapes alone; with values where the
    user's code looks at some as it builds.

    Raises ModelError for a model that cannot be built.
    """
    if config.model.kind == BUILT_IN:
        with shapes_only(config):
            return build()
    try:
        with shapes_only(config):
            return build()
    except Exception as error:  # noqa: BLE001 - the user's code raises many kinds
        log.debug("%s is built with values: %s", config.model.kind, error)
        return build()


@contextmanager
def shapes_only(config: RunConfig) -> Iterator[None]:
    """Modules that are built inside have no values, and leave none without values behind. Raises
    ModelError when the builder's module cannot be imported."""
    if config.model.kind == BUILT_IN:
        with _NoDraws(), META:
            yield
        return
    imported(config.model.kind)  # what may be imported only once is
    with _copies(set(sources_of(config.model.kind))), _NoDraws(), META:
        yield


@contextmanager
def _copies(names: set[str]) -> Iterator[None]:
    """Import modules of these names anew inside, and have the present ones again at the end."""
    present = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(present)
        for package, last in (name.rpartition(".")[::2] for name in present):
            if package in sys.modules:
                setattr(sys.modules[package], last, present[f"{package}.{last}"])


class _NoDraws(TorchFunctionMode):
    """A normal draw on the meta device would import torch's compiler: a second and 100 MB."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            filled: Tensor = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **kwargs)
