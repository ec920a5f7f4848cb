"""The limits of what others, and our own logs and files, may take."""
