"""The closing of steps: when a version is announced, and whom a step goes on without."""
