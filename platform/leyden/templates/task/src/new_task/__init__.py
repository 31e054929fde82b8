"""NewTask: classification of signals. Imports nothing, so that `leyden list` stays quick."""
