"""Segmentation networks: images in, logits of each pixel out."""
