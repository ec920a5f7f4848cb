"""Times that a core learns and keeps: estimates, deadlines, the speed of a link."""
