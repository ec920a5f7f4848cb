"""The commands that read what a run has left."""
