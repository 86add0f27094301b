"""The scheduler's statements."""
