"""What runs in the process that evaluates: the standard library and the engine, nothing of ours beside it."""
