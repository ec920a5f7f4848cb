"""Who serves which stage for the shortest step, decided before a run."""
