"""One file per command beyond Lightning's four."""
