"""Building layers for their shapes alone: on torch's meta device, where nothing takes memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

META = torch.device("meta")


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are built inside have no values."""
    with _NoDraws(), META:
        yield


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
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
