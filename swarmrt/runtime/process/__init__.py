"""A real process around a core: its loop, threads, signals and logs."""
