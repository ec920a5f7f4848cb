"""The coming of peers: what they say of themselves, and how they are let in."""
