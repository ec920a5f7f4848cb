"""A peer's updates: how gradients become the next version of its stage."""
