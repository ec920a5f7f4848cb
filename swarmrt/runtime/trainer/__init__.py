"""The trainer: its core's instructions, done with real data and checkpoints."""
