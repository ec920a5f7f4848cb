"""Lifting the poorest stage, again and again, for as long as it is worth the moves.

The rate of a swarm is that of its slowest stage. Where several are as slow as each other one
chain alone gains nothing: chains are made one after the other, and what in the end has not paid
is taken back.
"""

from __future__ import annotations

from swarmrt.scheduler.rebalancing.assignment import Assignment, Move
from swarmrt.scheduler.rebalancing.chains import Chain, find_chain, find_move, level_of
from swarmrt.scheduler.rebalancing.loaders import Loaders
from swarmrt.scheduler.rebalancing.settings import Settings

LEVELS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)  # of the way from the poorest stage to what it could have


def raise_poorest(
    assignment: Assignment, settings: Settings, loaders: Loaders | None = None
) -> list[Move]:
    """Make moves that raise the swarm's rate, and return those that were kept."""
    moves: list[Move] = []
    kept, before = 0, assignment.worth()
    fair = assignment.fair()
    while before[0] or fair - before[1] >= settings.hysteresis * before[1]:  # else none can pay
        chain = _best_chain(assignment, assignment.poorest(), fair, settings, loaders)
        if not chain:
            break
        for move in chain:
            assignment.move(move.peer, move.to_stage)
            if loaders is not None:
                loaders.take(move.peer)
        moves += chain
        if _is_worth(assignment, before, moves[kept:], settings, loaders):
            kept, before = len(moves), assignment.worth()
    for move in reversed(moves[kept:]):
        assignment.take_back(move)
        if loaders is not None:
            loaders.put_back(move.peer)
    return moves[:kept]


def _best_chain(
    assignment: Assignment,
    start: int,
    fair: float,
    settings: Settings,
    loaders: Loaders | None,
) -> Chain:
    """Return the chain that lifts a stage furthest, each move after the first being paid for."""
    now = assignment.rates[start]
    high = min(fair, now + assignment.fastest / assignment.stages[start].compute)
    price = settings.move_cost * assignment.mean_rate()
    best = find_move(assignment, start, high)
    best_score = level_of(assignment, best) - now if best else 0.0
    if best and best_score + max(price, settings.hysteresis * now) >= high - now:
        return best  # no chain gains so much more that it is worth a move more
    for share in LEVELS:
        level = now + share * (high - now)
        if level <= now:
            if not assignment.lacks(start):
                break
            level = 0.0  # anybody is welcome
        if best and level - now <= best_score:
            break  # nothing below can be better
        chain = find_chain(assignment, start, level, settings.longest_chain, loaders)
        if not chain:
            continue
        score = level_of(assignment, chain) - now - price * (len(chain) - 1)
        if not best or score > best_score:
            best, best_score = chain, score
    return best


def _is_worth(
    assignment: Assignment,
    before: tuple[int, float],
    moves: list[Move],
    settings: Settings,
    loaders: Loaders | None,
) -> bool:
    """Return whether moves have made more replicas, or more of a rate than they cost."""
    lacking, rate = assignment.worth()
    if lacking != before[0]:
        return lacking > before[0]
    gain = rate - before[1]
    stay_s = settings.expected_stay_s
    mean = assignment.mean_rate()
    price = settings.move_cost * mean * len(moves)
    if loaders is not None:
        seconds = [loaders.seconds(m.peer, m.to_stage) for m in moves if m.is_download]
        gain *= max(0.0, 1.0 - max(seconds, default=0.0) / stay_s)
        price += settings.download_cost * mean * len(seconds)
    return gain > 0 and gain >= max(settings.hysteresis * before[1], price)
