"""A peer's membership: how it joins, loads its state, says how it is, and leaves."""
