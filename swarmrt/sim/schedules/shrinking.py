"""The shortest story of a schedule that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from swarmrt.sim.schedules.faults import Outcome, Scenario, play


def failure_of(scenario: Scenario, run: Callable[[Scenario], Outcome] = play) -> Exception | None:
    try:
        run(scenario)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is what is looked for
        return failure
    return None


def first_failing(
    scenarios: Iterable[Scenario], run: Callable[[Scenario], Outcome] = play
) -> tuple[Scenario, Exception] | None:
    """Return the first of them that fails, and how; None when none does."""
    for scenario in scenarios:
        failure = failure_of(scenario, run)
        if failure is not None:
            return scenario, failure
    return None


def play_all(scenarios: Iterable[Scenario]) -> None:
    """Play them. Raises AssertionError with the shortest story of the first that fails."""
    found = first_failing(scenarios)
    if found is not None:
        scenario, failure = found
        raise AssertionError(shrink(scenario).story()) from failure


def shrink(scenario: Scenario, run: Callable[[Scenario], Outcome] = play) -> Scenario:
    """The shortest story that still fails: without whatever is not needed for it."""
    changed = True
    while changed:
        changed = False
        for index in range(len(scenario.faults)):
            faults = scenario.faults[:index] + scenario.faults[index + 1 :]
            shorter = replace(scenario, faults=faults)
            if failure_of(shorter, run) is not None:
                scenario, changed = shorter, True
                break
    for simpler in (
        replace(scenario, skew_s=0.0, drift=0.0),
        replace(scenario, eval_every=0),
        replace(scenario, links=()),
        replace(scenario, staleness=0),
        replace(scenario, fresh_steps=0),
        replace(scenario, sync_steps=0),
        replace(scenario, islands=1),
        replace(scenario, microbatches=1),
        replace(scenario, steps=2),
    ):
        if failure_of(simpler, run) is not None:
            scenario = simpler
    return scenario
