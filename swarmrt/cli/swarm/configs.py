"""The commands `swarmrt init` and `swarmrt config`."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.cli.options.runs import SET
from swarmrt.config import STRATEGIES, SYNC
from swarmrt.config_toml import dump_toml, explained_toml, load_config
from swarmrt.errors import ConfigError


def init(
    path: Path = typer.Argument(Path("run.toml"), help="The file to write."),
    strategy: str = typer.Option(
        SYNC, "--strategy", metavar="|".join(STRATEGIES), help="How replicas come to agree."
    ),
) -> None:
    """Write a commented starting configuration."""
    from swarmrt.averaging.starts import start_of

    if path.exists():
        raise ConfigError(f"{path} exists already; choose another name")
    what = "these are the defaults" if strategy == SYNC else f"a start for {strategy}"
    header = f"# A swarmrt run. Every line is optional; {what}.\n\n"
    try:
        path.write_text(header + explained_toml(start_of(strategy)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"wrote {path}; try it with: swarmrt local {path}")


def config(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    overrides: list[str] = SET,
) -> None:
    """Print the effective configuration: file, environment and --set together."""
    print(dump_toml(load_config(path, overrides)), end="")
