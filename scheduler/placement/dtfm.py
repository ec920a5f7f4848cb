"""DT-FM's search, to compare with (Yuan et al. 2022, arXiv 2206.01288): a genetic one.

As many peers for each stage, whatever they cost or how fast they are, nobody left out. A partition
costs what its slowest group's exchange of gradients takes, and what the best order of the groups
takes for one microbatch, over a matching of their peers whose slowest pair is the fastest. A child
has groups of two parents, and is improved by swaps along the fastest links inside of groups.
"""

from __future__ import annotations

import itertools
import random

from swarmrt.scheduler.placement.facts import Job, Matrix, Network, Placement

POPULATION = 40
SWAPS = 60  # tried of each child


def dtfm(job: Job, network: Network, *, seed: int = 0, generations: int = 60) -> Placement:
    """Return the placement that the search comes to. The number of peers need not divide evenly."""
    rng = random.Random(seed)
    costs = _Costs(job, network)
    people = [_at_random(len(job.stages), len(network.names), rng) for _ in range(POPULATION)]
    scored = sorted((costs.of(groups), groups) for groups in people)
    for _ in range(generations):
        one, other = rng.sample([groups for _, groups in scored], 2)
        child = _swapped(_child(one, other, rng), costs, rng)
        scored.append((costs.of(child), child))
        scored.sort()
        scored.pop()
    best = scored[0][1]
    order = costs.order(best)
    return tuple(tuple(sorted(best[group])) for group in order)


Groups = tuple[tuple[int, ...], ...]


class _Costs:
    def __init__(self, job: Job, network: Network) -> None:
        gradient = max(cost.gradient_bytes for cost in job.stages)
        message = max(cost.output_bytes for cost in job.stages)
        number = len(network.names) / len(job.stages)
        self._exchange = _both_ways_s(network, gradient / number)
        self._pass = _both_ways_s(network, message)
        self.bytes_per_s = network.bytes_per_s
        self._group_memo: dict[tuple[int, ...], float] = {}
        self._pair_memo: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}

    def of(self, groups: Groups) -> float:
        order = self.order(groups)
        passed = sum(self._between(groups[a], groups[b]) for a, b in itertools.pairwise(order))
        return max(self.group(group) for group in groups) + passed

    def group(self, group: tuple[int, ...]) -> float:
        if group not in self._group_memo:
            self._group_memo[group] = max(
                sum(self._exchange[one][other] for other in group if other != one) for one in group
            )
        return self._group_memo[group]

    def _between(self, one: tuple[int, ...], other: tuple[int, ...]) -> float:
        """Return the slowest pair of the matching in which that is the fastest."""
        key = (one, other) if one < other else (other, one)
        if key not in self._pair_memo:
            self._pair_memo[key] = _bottleneck([[self._pass[a][b] for b in key[1]] for a in key[0]])
        return self._pair_memo[key]

    def order(self, groups: Groups) -> tuple[int, ...]:
        """Return the order of the groups in which one microbatch passes them the fastest."""
        number = range(len(groups))
        apart = [
            [self._between(groups[a], groups[b]) if a != b else 0.0 for b in number] for a in number
        ]

        def length(order: tuple[int, ...]) -> float:
            return sum(apart[a][b] for a, b in itertools.pairwise(order))

        best = min((_nearest(apart, first) for first in number), key=length)
        improved = True
        while improved:
            improved = False
            for i, j in itertools.combinations(range(len(groups)), 2):
                turned = (*best[:i], *reversed(best[i : j + 1]), *best[j + 1 :])
                if length(turned) < length(best) - 1e-12:
                    best, improved = turned, True
        return best


def _nearest(apart: list[list[float]], first: int) -> tuple[int, ...]:
    order, left = [first], set(range(len(apart))) - {first}
    while left:
        here = order[-1]
        order.append(min(left, key=lambda group: (apart[here][group], group)))
        left.discard(order[-1])
    return tuple(order)


def _bottleneck(seconds: list[list[float]]) -> float:
    """Return the least bound within which as many pairs can be matched as there are peers."""
    values = sorted({value for row in seconds for value in row})
    low, high = 0, len(values) - 1
    wanted = min(len(seconds), len(seconds[0]))
    while low < high:
        middle = (low + high) // 2
        if _most_pairs(seconds, values[middle]) >= wanted:
            high = middle
        else:
            low = middle + 1
    return values[low]


def _most_pairs(seconds: list[list[float]], within_s: float) -> int:
    """Return the size of a largest matching, by augmenting paths."""
    matched: dict[int, int] = {}

    def augment(row: int, seen: set[int]) -> bool:
        for column, value in enumerate(seconds[row]):
            if value <= within_s and column not in seen:
                seen.add(column)
                if column not in matched or augment(matched[column], seen):
                    matched[column] = row
                    return True
        return False

    return sum(augment(row, set()) for row in range(len(seconds)))


def _both_ways_s(network: Network, size: float) -> Matrix:
    """Return what a message takes there and back, twice the one way."""
    return tuple(
        tuple(2 * (delay_s + size / width) for delay_s, width in zip(*rows, strict=True))
        for rows in zip(network.delay_s, network.bytes_per_s, strict=True)
    )


def _at_random(stages: int, number: int, rng: random.Random) -> Groups:
    order = rng.sample(range(number), number)
    return tuple(tuple(sorted(order[stage::stages])) for stage in range(stages))


def _child(one: Groups, other: Groups, rng: random.Random) -> Groups:
    """Return half of the groups of one parent, and what is left in the order of the other's."""
    kept = rng.sample(one, len(one) // 2)
    taken = {peer for group in kept for peer in group}
    left = [peer for group in other for peer in group if peer not in taken]
    sizes = sorted((len(group) for group in one if group not in kept), reverse=True)
    groups = list(kept)
    for size in sizes:
        groups.append(tuple(sorted(left[:size])))
        left = left[size:]
    return tuple(groups)


def _swapped(groups: Groups, costs: _Costs, rng: random.Random) -> Groups:
    """Bring peers together that have the fastest links to each other."""
    best = max(costs.group(group) for group in groups)
    total = sum(costs.group(group) for group in groups)
    for _ in range(SWAPS):
        a, b = rng.sample(range(len(groups)), 2)
        x = rng.choice(groups[a])
        nearest = max(groups[b], key=lambda peer: costs.bytes_per_s[x][peer])
        y = rng.choice([peer for peer in groups[b] if peer != nearest] or [nearest])
        one = tuple(sorted((set(groups[a]) - {x}) | {y}))
        other = tuple(sorted((set(groups[b]) - {y}) | {x}))
        changed = tuple(
            one if i == a else other if i == b else group for i, group in enumerate(groups)
        )
        its = max(costs.group(group) for group in changed)
        its_total = sum(costs.group(group) for group in changed)
        if (its, its_total) < (best, total):
            groups, best, total = changed, its, its_total
    return groups
