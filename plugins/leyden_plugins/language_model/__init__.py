"""Language models: the task and its networks."""
