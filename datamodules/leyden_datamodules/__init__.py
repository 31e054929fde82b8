"""Data modules: one file per data set, or per kind of data set."""
