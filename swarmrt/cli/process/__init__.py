"""The process around a command: its start, its signals and logs, its end."""
