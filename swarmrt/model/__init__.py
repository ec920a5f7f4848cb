"""Models: layers, the cut into stages, and what a stage computes."""
