"""The command `swarmrt failpoints`: where a process can be made to fail."""

from __future__ import annotations


def failpoints() -> None:
    """List the named places at which SWARMRT_FAILPOINTS can kill, pause, delay or drop."""
    from swarmrt.runtime.faults.failpoints import VARIABLE
    from swarmrt.scheduler.failpoints import all_points

    print(f"{VARIABLE}=POINT=kill|pause[:SECONDS]|delay[:SECONDS]|drop[@PASSAGE],…\n")
    print("\n".join(all_points()))
