"""A simulated peer: the production core, with sets of microbatches for gradients."""
