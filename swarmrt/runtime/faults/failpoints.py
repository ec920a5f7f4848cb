"""Failpoints: named places before and after each act that is durable or moves ownership.

    SWARMRT_FAILPOINTS="peer.accumulate.before_receipt=kill@3,trainer.apply.before_send=pause:2@1"

At the n-th passage of a point the process is killed, stopped for some seconds, delayed, or skips
the act (a message is dropped). A point is passed before or after its instruction is carried out,
so that there is one place for all of them, and nothing to pay for those that are off. What a
process does to itself so is written down before it is done, in `faults.jsonl` of its folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from swarmrt.errors import UsageError, did_you_mean
from swarmrt.runtime.faults.standing_still import stand_still
from swarmrt.scheduler.failpoints import Role, all_points

log = logging.getLogger("swarmrt.failpoints")

VARIABLE = "SWARMRT_FAILPOINTS"
PAUSE_S = 2.0
DELAY_S = 0.5
RECORD = "faults.jsonl"  # in a process's folder


@dataclass(frozen=True)
class Rule:
    point: str
    action: str  # kill, pause, delay or drop
    seconds: float
    passage: int  # the n-th, from 1

    def __str__(self) -> str:
        seconds = f":{self.seconds:g}" if self.action in ("pause", "delay") else ""
        return f"{self.point}={self.action}{seconds}@{self.passage}"


class Failpoints:
    """The rules that are on in this process. Those that fire are written down in its folder, if it
    has one."""

    def __init__(self, rules: Iterable[Rule] = (), folder: Path | None = None) -> None:
        self._rules, self._folder = list(rules), folder
        self._passages: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def arm(self, text: str) -> None:
        """Switch rules on, like those of the environment variable; passages count from now on.
        Raises UsageError for bad ones."""
        for rule in read_rules(text):
            passage = self._passages[rule.point] + rule.passage
            self._rules.append(replace(rule, passage=passage))

    def at(self, point: str) -> bool:
        """Pass a point. False: skip the act."""
        self._passages[point] += 1
        due = [r for r in self._rules if (r.point, r.passage) == (point, self._passages[point])]
        for rule in due:
            self._note(rule)
        return all([_do(rule) for rule in due])

    def _note(self, rule: Rule) -> None:
        if self._folder is None:
            return
        what = {"time": time.time(), "kind": f"failpoint {rule.action}", "rule": str(rule)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / RECORD).open("a", encoding="utf-8") as file:
                file.write(json.dumps(what) + "\n")
        except OSError as error:
            log.warning("the failpoint %s is not on record: %s", rule, error.strerror)

    def never_fired(self) -> list[str]:
        """Return a line for each rule whose passage never came."""
        return [
            f"the failpoint {rule} never fired: its point was passed {count} "
            f"time{'' if count == 1 else 's'}"
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


def parse_failpoints(text: str, folder: Path | None = None) -> Failpoints:
    """Read the environment variable. Raises UsageError for unknown points and actions."""
    return Failpoints(read_rules(text), folder)


def read_rules(text: str) -> list[Rule]:
    """Return the rules in the environment variable, as `parse_failpoints` does."""
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
    return rules


def rules_for(role: Role, rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules for a process of this role."""
    return [rule for rule in rules if rule.point.startswith(f"{role}.")]


def as_variables(rules: Sequence[Rule]) -> dict[str, str]:
    """Return the variables of a process in which these rules are on."""
    return {VARIABLE: ",".join(map(str, rules))} if rules else {}


def unfired(rules: Iterable[Rule], folders: Iterable[Path], since_s: float) -> list[str]:
    """Return a line for each rule that no process with one of these folders has on record since
    then, in seconds since 1970."""
    fired = {rule for folder in folders for rule in _on_record(folder / RECORD, since_s)}
    return [f"the failpoint {rule} never fired" for rule in rules if str(rule) not in fired]


def _on_record(path: Path, since_s: float) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError):  # a line that had no room on the disk
            fault = json.loads(line)
            if fault["time"] >= since_s:
                yield fault["rule"]
