"""A peer's decisions: its core, its seat, and whom it believes."""
