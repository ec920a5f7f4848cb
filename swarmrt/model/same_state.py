"""The fit of a state that a run has come to, and a configuration that was changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.model.layout import layout_from
from swarmrt.model.partition import check_stages
from swarmrt.run_identity import PINNED, differences, value_at, with_values

Shapes = dict[str, tuple[object, ...]]


def check_same_state(known: RunConfig, config: RunConfig) -> None:
    """Check that a state of the known configuration is one of the new one too. The cut of both must
    be set. Raises ModelError naming what makes it another one."""
    changed = [key for key in differences(known, config) if key not in PINNED]
    before = _shapes(known) if changed else None
    if before == _shapes(config) or not changed:
        return
    alone = [
        key
        for key in changed
        if before != _shapes(with_values(known, {key: value_at(config, key)}))
    ]
    raise ModelError(
        f"{', '.join(alone or changed)} cannot be changed for a state that exists, whose tensors "
        "are others; leave it as it was, or begin another run in another folder"
    )


def _shapes(config: RunConfig) -> Shapes | None:
    """Return names, shapes and dtypes of all stages' states; None for a model that cannot be built
    or cut so."""
    try:
        check_stages(config)
        return {
            f"{stage} {name}": (tensor.shape, tensor.dtype)
            for stage in range(config.num_stages)
            for name, tensor in layout_from(config, stage).tensors.items()
        }
    except ModelError:
        return None


def check_state_fits(config: RunConfig, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Check that these, one a stage, are states of what the builder's code makes now. Raises
    ModelError."""
    for stage, state in enumerate(states):
        try:
            layout_from(config, stage).check(
                state, "", f"the state of stage {stage}, which exists,"
            )
        except CheckpointError as error:
            raise ModelError(
                f"{config.model.kind}: its code makes another model now: {error}; use the code "
                "that it was begun with, or begin another run in another folder"
            ) from None
