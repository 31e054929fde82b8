"""Detection networks: images in, logits and offsets of each anchor out."""
