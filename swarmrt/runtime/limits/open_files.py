"""The number of files, and so of connections, that this process may have open."""

from __future__ import annotations

import resource

ENOUGH = 32_768  # four for each of the most links that there may be


def allow_many_files() -> None:
    """Have the system let this process, and those that it starts, open as many as it may and can
    use. A usual session allows 1024, which a large swarm's trainer would soon need."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def open_files_allowed() -> int:
    """Return how many files this process may have open, as far as it can use them."""
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if now == resource.RLIM_INFINITY else min(now, ENOUGH)
