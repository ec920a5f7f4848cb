"""The identity of a run: everything in its configuration that decides the weights.

The configuration names by content, or by release, what is no setting: the builder's code, the text,
swarmrt itself. They are written down by `train`, as the cut is. Whoever shares a run compares its
fingerprint, and says what differs.

Another release of swarmrt may draw, order or compute otherwise: it is another run. Another release
of a library, torch above all, may round otherwise, as other hardware may. That is told, and found
out where it matters: at the first update that differs the owners of parts update for all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Mapping
from typing import Any

from swarmrt import __version__
from swarmrt.config import RunConfig
from swarmrt.errors import ConfigError
from swarmrt.foreign import printable


def _release_of(version: str) -> str:
    """Return the first two numbers of a version."""
    return ".".join(version.split(".")[:2])


RELEASE = _release_of(__version__)
DECIDING = ("model", "stages", "batch", "optimizer", "precision", "averaging")  # whole sections
PINNED = ("model.code", "data.digest", "run.swarmrt")
DECIDING_KEYS = ("run.seed", "run.steps", "run.swarmrt", "data.digest", "data.held_out")
MAY_GROW = ("run.steps",)  # a run may go on for longer than it was first asked to
LIBRARIES = ("torch", "numpy")  # first weights, rounding; the order of data
MAX_RELEASE = 20  # characters shown of another's


def pinned(config: RunConfig, code: str | None, digest: str) -> RunConfig:
    """Return the run with its builder's code and its text by content, and with the releases that
    make it. Raises ConfigError when it names others."""
    it_is = dict(zip(PINNED, (code, digest, RELEASE), strict=True))
    what = dict(zip(PINNED, ("the builder's code", "the text", "swarmrt"), strict=True))
    for key, value in it_is.items():
        is_said = value_at(config, key)
        if is_said not in (None, value):
            raise ConfigError(
                f"{key} says {is_said}, but {what[key]} here is {value}; use the one that is "
                f"meant, or leave {key} out"
            )
    return with_values(config, it_is | {"run.libraries": libraries_here()})


def without_pins(config: RunConfig, keys: Collection[str]) -> RunConfig:
    """Return the run without what it names by content, for those of these keys that do so."""
    return with_values(config, {key: None for key in PINNED if key in keys})


def value_at(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with these settings by `section.key`, which are not checked."""
    for key, value in values.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config


# ---------------------------------------------------------------------- releases


def libraries_here() -> str:
    """Return the releases of libraries, as a configuration writes them down."""
    found = [f"{name} {_release_of(importlib.metadata.version(name))}" for name in LIBRARIES]
    return ", ".join(found)


def check_release(config: Mapping[str, Any], whose: str) -> None:
    """Check that a configuration that another process has sent, not yet looked at, is of this
    release of swarmrt, if it says so. Raises ConfigError."""
    run = config.get("run")
    said = run.get("swarmrt") if isinstance(run, Mapping) else None
    if isinstance(said, str) and said != RELEASE:
        raise ConfigError(
            f"{whose} is made by swarmrt {printable(said, MAX_RELEASE)}, and here is {RELEASE}, "
            "which would make other weights of it; install that release"
        )


def library_notes(config: RunConfig, whose: str) -> list[str]:
    """Return a sentence for people if the libraries are not those of this configuration."""
    said, here = config.run.libraries, libraries_here()
    if said in (None, here):
        return []
    return [
        f"{whose} has {printable(said or '')}, and here is {here}: results may be rounded "
        "differently, which is found out at the first update that differs"
    ]


# ---------------------------------------------------------------------- comparing


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
    unknown = {name for name in PINNED if before[name] is None}
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
