"""The libp2p daemon of a process."""
