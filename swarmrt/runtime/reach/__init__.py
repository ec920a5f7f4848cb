"""The places where a process can be reached, and how it learns of them."""
