"""The commands about who owns a run, and who may come into it."""
