"""A step's microbatches, from the first attempt to the last receipt."""
