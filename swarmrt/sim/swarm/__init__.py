"""A swarm of production cores in the simulated world, and what must hold of it."""
