"""A configuration in TOML: read from a file, the environment and `--set`, checked, and written.

Nothing below the command line reads a file or the environment again.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from swarmrt.config import MAX_NAME, STDLIB, RunConfig, Section
from swarmrt.errors import ConfigError, did_you_mean
from swarmrt.foreign import printable

ENVIRONMENT_PREFIX = "SWARMRT_"
NOT_SETTINGS = ("SWARMRT_FAILPOINTS", "SWARMRT_JOIN", "SWARMRT_OUTPUT")  # of a process


def load_config(
    path: Path | None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> RunConfig:
    """The effective configuration: file, then `SWARMRT_SECTION_KEY`, then `section.key=value`.

    Paths in the file are relative to its folder; others, to the working folder. Both are absolute
    in what is returned.
    Raises ConfigError, naming the file or variable and the nearest valid name.
    """
    values = _read_toml(path) if path is not None else {}
    if path is not None:
        _find_beside(path, values)
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            section, key = _environment_key(name)
            _table(values, section, name)[key] = _toml_value(text)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        section, dot, key = dotted.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(f"--set {override!r}: write section.key=value")
        _table(values, section, f"--set {override}")[key.strip()] = _toml_value(text)
    _find_beside(None, values)
    return parse_config(values, str(path) if path is not None else "configuration")


def _find_beside(path: Path | None, values: dict[str, Any]) -> None:
    """Make paths absolute: those in a file are relative to it."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    folder = path.parent if path is not None else Path()
    for key in ("source", "tokenizer"):
        named = data.get(key)
        if isinstance(named, str) and named not in ("", STDLIB):
            data[key] = str((folder / named).absolute())


def parse_config(values: Mapping[str, Any], source: str) -> RunConfig:
    """Check plain values, as read from TOML or a directory record. Raises ConfigError."""
    _refuse_unknown_keys(values, source)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        what = first["msg"].removeprefix("Value error, ")
        is_short = isinstance(first["input"], str | int | float)
        given = f" (got {first['input']!r:.80})" if is_short else ""
        whose = f"{source}: {where}" if where else source
        raise ConfigError(f"{whose}: {printable(what)}{given}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `swarmrt init {path}` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _environment_key(name: str) -> tuple[str, str]:
    wanted = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    known = {f"{section}_{key}": (section, key) for section, key in _all_keys()}
    if wanted not in known:
        names = [ENVIRONMENT_PREFIX + dotted.upper() for dotted in known]
        hint = did_you_mean(name, names) if len(wanted) < 40 else ""
        if not hint.startswith("; did"):
            hint = "; write SWARMRT_SECTION_KEY, for example SWARMRT_RUN_STEPS"
        raise ConfigError(f"environment variable {name}: no such setting{hint}")
    return known[wanted]


def _all_keys() -> list[tuple[str, str]]:
    return [
        (section, key)
        for section, field in RunConfig.model_fields.items()
        for key in _section_class(field.annotation).model_fields
    ]


def _section_class(annotation: Any) -> type[Section]:
    assert isinstance(annotation, type) and issubclass(annotation, Section)
    return annotation


def _table(values: dict[str, Any], section: str, source: str) -> dict[str, Any]:
    table = values.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {section!r} is not a section")
    return table


def _toml_value(text: str) -> Any:
    """A TOML value, or, when it is not one, the text itself: `--set run.name=mine` just works."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _refuse_unknown_keys(values: Mapping[str, Any], source: str) -> None:
    sections = RunConfig.model_fields
    for section, table in values.items():
        if section not in sections:
            name = printable(str(section), MAX_NAME)
            raise ConfigError(f"{source}: unknown section [{name}]{did_you_mean(name, sections)}")
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"{source}: [{section}] must be a section with keys, got {table!r:.80}"
            )
        known = _section_class(sections[section].annotation).model_fields
        for key in table:
            if key not in known:
                name = printable(str(key), MAX_NAME)
                raise ConfigError(
                    f"{source}: unknown key {section}.{name}{did_you_mean(name, known)}"
                )


def dump_toml(config: RunConfig) -> str:
    """Return the configuration as TOML. Raises ConfigError for options that it has no words for."""
    values = config.model_dump(exclude_none=True)
    if not values["model"]["options"]:
        del values["model"]["options"]
    try:
        return tomli_w.dumps(values)
    except TypeError as error:
        raise ConfigError(f"model.options cannot be written as TOML: {error}") from None


def explained_toml(config: RunConfig | None = None) -> str:
    """Return a configuration, by default the defaults, as TOML, each key with its description."""
    lines: list[str] = []
    for section, values in (config or RunConfig()).model_dump().items():
        lines.append(f"[{section}]")
        fields = _section_class(RunConfig.model_fields[section].annotation).model_fields
        for key, value in values.items():
            is_unset = value in (None, {})
            text = f"# {key} = …" if is_unset else _in_one_line(tomli_w.dumps({key: value}))
            lines.append(f"{text:<36} # {fields[key].description}")
        lines.append("")
    return "\n".join(lines)


def _in_one_line(text: str) -> str:
    return " ".join(line.lstrip() for line in text.strip().split("\n"))
