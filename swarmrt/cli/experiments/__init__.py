"""The commands that measure, disturb and examine."""
