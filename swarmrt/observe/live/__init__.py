"""A run's progress, as it is seen."""
