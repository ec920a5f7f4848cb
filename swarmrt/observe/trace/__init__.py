"""The timeline of all processes of a run."""
