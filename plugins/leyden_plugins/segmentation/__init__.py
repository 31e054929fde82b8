"""Semantic segmentation: the task and its networks."""
