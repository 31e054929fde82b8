"""Image-classification networks: images in, logits out."""
