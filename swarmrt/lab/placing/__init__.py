"""The places of known peers in a run, told before it begins."""
