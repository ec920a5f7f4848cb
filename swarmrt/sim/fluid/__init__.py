"""The fluid simulator: a swarm as rates that are constant between one change and the next.

Microbatches, links and queues are not in it. What is: who is there, who serves and holds what,
how long a state loads, how late a loss is noticed, and the policy that decides, which is the one
that real swarms run (`scheduler/rebalancing`).
"""
