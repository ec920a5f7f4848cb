"""The run's work: every microbatch of every step, and who owns it."""
