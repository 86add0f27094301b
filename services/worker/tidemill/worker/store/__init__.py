"""The worker's statements: calls of the queue's interface, and the source of a version."""
