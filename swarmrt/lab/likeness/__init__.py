"""The likeness of a run: a scenario that is made of its logs, and how near its simulation comes."""
