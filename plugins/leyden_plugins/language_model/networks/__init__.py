"""Language-model networks: tokens and a state in, logits of the next tokens and a state out."""
