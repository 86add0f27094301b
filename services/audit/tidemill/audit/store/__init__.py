"""The audit service's statements."""
