"""Regression networks: rows of numbers in, one number for each out."""
