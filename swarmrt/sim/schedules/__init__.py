"""Schedules of what goes wrong, drawn from seeds, and the shortest that still fails."""
