"""The owner of this machine: what they ask its peers, over a local socket, and their limits."""
