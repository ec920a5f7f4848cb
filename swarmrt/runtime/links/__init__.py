"""Links: persistent, encrypted, framed connections to other processes."""
