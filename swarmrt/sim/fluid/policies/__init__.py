"""Policies that the simulator compares: ours, and others' as we read them."""
