"""Forecasting of time series. Imports nothing, so that `leyden list` stays quick."""
