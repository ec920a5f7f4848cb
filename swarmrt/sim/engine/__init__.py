"""The simulated world without what it is for: time, links and processes."""
