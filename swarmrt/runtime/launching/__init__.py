"""Processes that swarmrt starts by itself."""
