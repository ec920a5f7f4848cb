"""The state of a stage on its way: given, fetched, copied, left behind."""
