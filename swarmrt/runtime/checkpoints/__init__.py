"""Checkpoints on the disk: collected, written, whole or absent."""
