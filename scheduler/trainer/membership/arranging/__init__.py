"""The arranging of processes that serve where it helps most: who loads, serves and forgets what."""
