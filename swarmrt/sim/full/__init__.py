"""The full simulator: every message of the protocol, through the production cores."""
