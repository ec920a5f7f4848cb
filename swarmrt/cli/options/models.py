"""Options about models and policies that others have written."""

from __future__ import annotations

import typer

ALLOW_MODEL = typer.Option(
    [],
    "--allow-model",
    metavar="PKG.MODULE:FUNCTION",
    help="A builder that may run here, beside the built-in decoder; may be repeated.",
)
ALLOW_POLICY = typer.Option(
    [],
    "--allow-policy",
    metavar="PKG.MODULE:CLASS",
    help="A policy of wiring that may run here, beside the built-in one; may be repeated.",
)
MODEL_PATH = typer.Option(
    [],
    "--model-path",
    metavar="DIR",
    exists=True,
    file_okay=False,
    help="Where such a module lies, if it is not installed; may be repeated.",
)
