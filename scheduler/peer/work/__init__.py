"""A peer's work: the microbatches that it has, from the first offer to the last gradient."""
