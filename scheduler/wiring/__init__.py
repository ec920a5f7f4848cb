"""Stochastic wiring: which replica of the next stage gets the next microbatch."""
