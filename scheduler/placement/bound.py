"""The most microbatches a second that a placement could pass, and what bounds it: a flow.

Peers pass no more than they compute, links no more than they carry, one way and back at the same
time. By the theorem of Ford and Fulkerson the least cut names what stands in the way.
"""

from __future__ import annotations

from typing import NamedTuple

import networkx

from swarmrt.scheduler.placement.facts import Job, Network, Placement


class Bound(NamedTuple):
    microbatches_per_s: float
    by: str  # for people


def bound(job: Job, network: Network, placement: Placement) -> Bound:
    """Return the flow through the stages, and what it is bounded by."""
    graph = networkx.DiGraph()
    for stage, peers in enumerate(placement):
        cost = job.stages[stage]
        for peer in peers:
            rate = network.speeds[peer] / cost.compute_s
            graph.add_edge(("in", stage, peer), ("out", stage, peer), capacity=rate)
            if stage == 0:
                graph.add_edge("source", ("in", stage, peer))
            if stage == len(placement) - 1:
                graph.add_edge(("out", stage, peer), "sink")
                continue
            for other in placement[stage + 1]:
                slower = min(network.bytes_per_s[peer][other], network.bytes_per_s[other][peer])
                carried = slower / cost.output_bytes if cost.output_bytes else float("inf")
                ends = (("out", stage, peer), ("in", stage + 1, other))
                graph.add_edge(*ends, capacity=carried)
    value, (here, there) = networkx.minimum_cut(graph, "source", "sink")
    cut = [(a, b) for a, b in graph.edges if a in here and b in there]
    return Bound(float(value), _named(cut, network))


def _named(cut: list[tuple[tuple[str, int, int], tuple[str, int, int]]], network: Network) -> str:
    """Return in words what is cut."""
    stages = sorted({one[1] for one, other in cut if one[1] == other[1]})
    hops = sorted({one[1] for one, other in cut if one[1] != other[1]})
    words = [f"the computing of stage {stage}" for stage in stages]
    words += [f"the links from stage {hop} to stage {hop + 1}" for hop in hops]
    return " and ".join(words)
