"""The strategies that have names of their own in the configuration."""

from __future__ import annotations

from swarmrt.averaging.diloco import Diloco
from swarmrt.averaging.plain import Plain
from swarmrt.averaging.sparse import Lofi, Sparta
from swarmrt.averaging.strategy import Strategy

BUILT_IN: dict[str, type[Strategy]] = {
    "async": Plain,
    "diloco": Diloco,
    "sparta": Sparta,
    "lofi": Lofi,
}
"""By what `averaging.strategy` says. `sync` averages nothing."""
