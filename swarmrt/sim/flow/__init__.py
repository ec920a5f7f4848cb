"""The flow simulator: each microbatch arrives once and departs once at a stage, each way.

Wiring, its estimates, the trainer's window and rebalancing are those of real swarms. The messages
of the protocol are not in it, nor are links but as a latency.
"""
