"""The way from a configuration to a strategy of averaging: one that is built in, or the user's own.

One of the user's own is code on this machine, as a builder is: see `builders`.
"""

from __future__ import annotations

from swarmrt.averaging import BUILT_IN, Strategy
from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.builders import imported, line_of


def strategy_of(config: RunConfig, num_parameters: int) -> Strategy:
    """Return the configured strategy. Raises ModelError for one of the user's own that is none."""
    named = config.averaging.strategy
    if not config.averaging.is_own:
        return BUILT_IN[named](config, num_parameters)
    module_name, _, name = named.partition(":")
    made = vars(imported(named)).get(name)
    if not isinstance(made, type) or not issubclass(made, Strategy):
        raise ModelError(
            f"averaging.strategy {named}: {module_name} has no class {name!r} that is a "
            "swarmrt.averaging.Strategy; write one, or name another"
        )
    try:
        return made(config, num_parameters)
    except Exception as error:
        raise ModelError(f"averaging.strategy {named}: cannot be made: {line_of(error)}") from error
