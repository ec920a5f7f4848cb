"""The commands `swarmrt init` and `swarmrt config`."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.config import dump_toml, explained_toml, load_config
from swarmrt.errors import ConfigError

SET = typer.Option(
    [], "--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
)
ALLOW_CHANGE = typer.Option(
    [],
    "--allow-change",
    metavar="SECTION.KEY",
    help="Go on although this differs from what the run was begun with; may be repeated.",
)
TRIAL = typer.Option(
    True, "--trial/--no-trial", help="Try a builder's model, whole and cut, on a microbatch first."
)
ALLOW_MODEL = typer.Option(
    [],
    "--allow-model",
    metavar="PKG.MODULE:FUNCTION",
    help="A builder that may run here, beside the built-in decoder; may be repeated.",
)
MODEL_PATH = typer.Option(
    [],
    "--model-path",
    metavar="DIR",
    exists=True,
    file_okay=False,
    help="Where its module lies, if it is not installed; may be repeated.",
)


def init(
    path: Path = typer.Argument(Path("run.toml"), help="The file to write."),
) -> None:
    """Write a commented starting configuration."""
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another name")
    header = "# A swarmrt run. Every line is optional; these are the defaults.\n\n"
    try:
        path.write_text(header + explained_toml(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"wrote {path}; try it with: swarmrt local {path}")


def config(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    overrides: list[str] = SET,
) -> None:
    """Print the effective configuration: file, environment and --set together."""
    print(dump_toml(load_config(path, overrides)), end="")
