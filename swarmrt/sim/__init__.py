"""The simulated world: whole swarms of the pure cores in virtual time."""
