"""Decentralised pipeline training on volatile peers."""

__version__ = "0.1.0"
