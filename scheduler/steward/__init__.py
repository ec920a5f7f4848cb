"""The decisions of a process that serves where it helps most: which seats it holds."""
