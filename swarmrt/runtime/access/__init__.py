"""The identity of a process, and who is let in."""
