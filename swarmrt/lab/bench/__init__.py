"""Measurements, each beside what bounds it."""
