"""The view of a live run from outside, for whoever is invited to it."""
