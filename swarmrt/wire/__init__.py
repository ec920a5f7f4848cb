"""Bytes: the sans-I/O wire format."""
