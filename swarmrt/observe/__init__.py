"""What people see: event logs, the live view, plots."""
