"""Failpoints: named places before and after each act that is durable or moves ownership.

    SWARMRT_FAILPOINTS="peer.accumulate.before_receipt=kill@3,trainer.apply.before_send=pause:2@1"

At the n-th passage of a point the process is killed, stopped for some seconds, delayed, or skips
the act (a message is dropped). A point is passed before or after its instruction is carried out,
so that there is one place for all of them, and nothing to pay for those that are off.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from swarmrt.errors import UsageError, did_you_mean
from swarmrt.runtime.faults.standing_still import stand_still
from swarmrt.scheduler.failpoints import all_points

VARIABLE = "SWARMRT_FAILPOINTS"
PAUSE_S = 2.0
DELAY_S = 0.5


@dataclass(frozen=True)
class Rule:
    point: str
    action: str  # kill, pause, delay or drop
    seconds: float
    passage: int  # the n-th, from 1


class Failpoints:
    """The rules that are on in this process."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = list(rules)
        self._passages: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def at(self, point: str) -> bool:
        """Pass a point. False: skip the act."""
        self._passages[point] += 1
        due = [r for r in self._rules if (r.point, r.passage) == (point, self._passages[point])]
        return all([_do(rule) for rule in due])

    def never_fired(self) -> list[str]:
        """Return a line for each rule whose passage never came."""
        return [
            f"the failpoint {rule.point}={rule.action}@{rule.passage} never fired: its point was "
            f"passed {count} time{'' if count == 1 else 's'}"
            for rule in self._rules
            if (count := self._passages[rule.point]) < rule.passage
        ]


def _do(rule: Rule) -> bool:
    match rule.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause":
            stand_still(os.getpid(), rule.seconds)
        case "delay":
            time.sleep(rule.seconds)  # a process that is late with everything
    return rule.action != "drop"


_RULE = re.compile(r"([\w.]+)=(kill|pause|delay|drop)(?::([\d.]+))?(?:@(\d+))?")


def parse_failpoints(text: str) -> Failpoints:
    """Read the environment variable. Raises UsageError for unknown points and actions."""
    rules = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _RULE.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{VARIABLE}: {part!r} is not point=action[:seconds][@passage]; the actions are "
                "kill, pause, delay and drop"
            )
        point, action, seconds, passage = match.groups()
        known = all_points()
        if point not in known:
            raise UsageError(f"{VARIABLE}: no failpoint {point}{did_you_mean(point, known)}")
        default_s = PAUSE_S if action == "pause" else DELAY_S
        rules.append(Rule(point, action, float(seconds or default_s), int(passage or 1)))
    return Failpoints(rules)
