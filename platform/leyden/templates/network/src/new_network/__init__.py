"""NewNetwork: a network for leyden. Imports nothing, so that `leyden list` stays quick."""
