"""Synchronous updates: all replicas of a stage reduce a complete step, and apply it together."""
