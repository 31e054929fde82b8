"""Style transfer: pictures painted in the manner of others."""
