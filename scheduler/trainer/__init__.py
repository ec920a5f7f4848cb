"""The trainer's decisions: its core, and the run from its start to its end."""
