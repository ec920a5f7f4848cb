"""Faults that are drawn from a seed, and made in a swarm."""
