"""Versions of replicas that make steps of their own: what each has moved is averaged."""
