"""Translation networks: source tokens and the translation so far in, logits of its next token out."""
