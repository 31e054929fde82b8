"""The networks, one file for each: net(history, horizon) maps (B, history) to (B, horizon)."""
