"""Options about models that others have written."""

from __future__ import annotations

import typer

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
