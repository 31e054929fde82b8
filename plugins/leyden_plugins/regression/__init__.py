"""Regression: the task and its networks."""
