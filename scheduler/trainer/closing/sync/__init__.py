"""Synchronous commit: all stages reduce a complete step, and all apply it together."""
