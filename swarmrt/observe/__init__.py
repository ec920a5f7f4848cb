"""The faces of a run: event logs, the live view, plots."""
