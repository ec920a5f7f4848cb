"""Real text as a deterministic stream of microbatches."""
