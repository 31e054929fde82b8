"""Image classification: the task and its networks."""
