"""The members of a run: who is let in, who is well, and who is lost."""
