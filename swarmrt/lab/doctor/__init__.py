"""The examination of what works from here, and why not."""
