"""Rebalancing: who serves which stage, who loads which state, and who stands by for what.

`rebalance.rebalance` is the one decision. It is a function of the facts in `swarm`, and what it
returns is in `plan`. The trainer, a newcomer that asks for a stage, a dry run and the simulator
call it; none of them has rules of its own.
"""
