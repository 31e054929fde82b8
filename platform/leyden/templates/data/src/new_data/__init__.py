"""NewData: labelled pictures for leyden. Imports nothing, so that `leyden list` stays quick."""
