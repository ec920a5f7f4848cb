"""The identity of a run: everything in its configuration that decides the weights.

The configuration names it by content: `model.code` and `data.digest` are written down by `train`,
as the cut is. Whoever shares a run compares its fingerprint, and says what differs.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from swarmrt.config import RunConfig

DECIDING = ("model", "stages", "batch", "optimizer", "precision")  # whole sections
DECIDING_KEYS = ("run.seed", "run.steps", "data.digest", "data.held_out")
MAY_GROW = ("run.steps",)  # a run may go on for longer than it was first asked to


def deciding(config: RunConfig) -> dict[str, Any]:
    """Return all settings that decide the weights, by `section.key`."""
    whole = config.model_dump(mode="json")
    found = {
        f"{section}.{key}": value for section in DECIDING for key, value in whole[section].items()
    }
    for name in DECIDING_KEYS:
        section, _, key = name.partition(".")
        found[name] = whole[section][key]
    return found


def fingerprint(config: RunConfig) -> str:
    """Return 32 hex digits that are equal only for equal weights, as far as it depends on this."""
    text = json.dumps(deciding(config), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(old: RunConfig, new: RunConfig) -> dict[str, str]:
    """Return, by `section.key`, in words what differs; nothing of what was not written down."""
    before, now = deciding(old), deciding(new)
    unknown = {name for name in ("model.code", "data.digest") if before[name] is None}
    return {
        name: _in_words(name, before[name], now[name])
        for name in before
        if before[name] != now[name] and name not in unknown and name not in MAY_GROW
    }


def _in_words(name: str, before: Any, now: Any) -> str:
    match name:
        case "data.digest":
            return "the text is not what it was (data.digest)"
        case "model.code":
            return "the code of the builder is not what it was (model.code)"
    return f"{name} was {before!r} and is {now!r}"
