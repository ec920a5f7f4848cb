"""State transfer: which bytes are asked of which donor, the same in all worlds."""
