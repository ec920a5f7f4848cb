"""The commands that a run begins with, and those that are a part of its swarm."""
