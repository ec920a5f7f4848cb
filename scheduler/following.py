"""The store of a newcomer: what it keeps of the steps that it misses while it loads its state.

Rules:
- It keeps as many bytes as the state that it loads has. What comes meanwhile is more only where it
  takes more than half of the link. 256 MiB are kept anyway, and a few steps.
- A step is kept as it travels: encoded, where gradients are. Where owners of parts update, a step
  is the state that they have made.
- The trainer goes by these numbers, and asks nobody to keep more; a newcomer holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass

ALWAYS_BYTES = 256 << 20  # so a small stage may miss many steps
LEAST_STEPS = 4  # that a newcomer may miss, whatever their gradients take
LEAST_STATES = 2  # the like of it, where owners of parts update
MOST_STEPS = 512  # and however small they are


@dataclass(frozen=True)
class Store:
    """The store for steps of a stage whose gradient, as it travels, and whose parameters and
    moments have so many bytes."""

    gradient_bytes: int
    state_bytes: int

    def step_bytes(self, *, by_owners: bool) -> int:
        """Return how many bytes a step takes."""
        return self.state_bytes if by_owners else self.gradient_bytes

    def most_steps(self, *, by_owners: bool) -> int:
        """Return how many steps a newcomer may miss."""
        step_bytes = max(1, self.step_bytes(by_owners=by_owners))
        return min(MOST_STEPS, self._most_bytes(by_owners=by_owners) // step_bytes)

    def has_room(self, kept_bytes: int, *, by_owners: bool) -> bool:
        """Return whether one more step may be kept beside so many bytes. What two reckon of a state
        may differ by a rounding: so there is room for a step that does not quite fit."""
        return kept_bytes <= self._most_bytes(by_owners=by_owners)

    def bound_bytes(self, *, by_owners: bool) -> int:
        """Return how many bytes may be kept at the most."""
        step_bytes = self.step_bytes(by_owners=by_owners)
        most_bytes = self._most_bytes(by_owners=by_owners) + step_bytes
        return min(most_bytes, (MOST_STEPS + 1) * step_bytes)

    def _most_bytes(self, *, by_owners: bool) -> int:
        least = LEAST_STATES if by_owners else LEAST_STEPS
        least_bytes = least * self.step_bytes(by_owners=by_owners)
        return max(ALWAYS_BYTES, self.state_bytes, least_bytes)
