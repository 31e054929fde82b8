"""Detection: the task and its networks."""
