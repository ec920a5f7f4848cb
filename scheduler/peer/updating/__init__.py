"""A peer's updates: how the gradients of a step become the next version of its stage."""
