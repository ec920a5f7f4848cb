"""Decisions: pure cores that take events and return instructions. No I/O, clock or torch."""

if not __name__.startswith("swarmrt."):
    raise ImportError(
        f"import swarmrt.scheduler, not {__name__}: the bare name belongs to another package"
    )
