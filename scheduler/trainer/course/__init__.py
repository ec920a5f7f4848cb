"""The course of a run: which version it is at, where a new trainer goes on, and how it ends."""
