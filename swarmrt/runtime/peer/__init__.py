"""A peer: its core's instructions, done with real tensors and links."""
