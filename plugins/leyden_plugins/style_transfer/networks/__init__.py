"""Networks of style transfer, each in its own file."""
