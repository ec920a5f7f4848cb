"""The swarms of real processes on this machine."""
