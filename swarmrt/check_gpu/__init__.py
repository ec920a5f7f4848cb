"""The checks and figures of swarmrt on a GPU, for the few minutes in which one is at hand.

`scripts/check_gpu` starts this package. What directs the checks needs Python alone; each check is a
process of its own, so that one that fails, hangs or crashes the driver costs its own result only.
"""
