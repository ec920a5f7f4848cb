"""The placement of stages on peers, for the shortest step, decided before a run."""
