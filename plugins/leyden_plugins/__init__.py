"""The tasks and networks that leyden brings along."""
