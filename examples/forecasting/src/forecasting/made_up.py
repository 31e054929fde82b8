"""Made-up data: the hourly load of three electricity grids. `python -m forecasting.made_up loads.csv` writes a year."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

GRIDS = {"north": 400.0, "south": 900.0, "west": 60.0}  # mean load in MW


def write_loads(path: Path, days: int, seed: int = 0) -> None:
    """Write a table with the columns time, north, south, west, and a row for each hour."""
    hours = np.arange(24 * days)
    table = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=len(hours), freq="h")})
    generator = np.random.default_rng(seed)
    for grid, mean in GRIDS.items():
        table[grid] = (mean * _shape(hours, generator)).round(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def _shape(hours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A load of mean 1: low at night, two peaks by day, less at weekends, and weather that lasts for days."""
    phase = 2 * np.pi * (hours - generator.uniform(0, 3)) / 24
    daily = -0.25 * np.cos(phase) - 0.1 * np.cos(2 * phase)
    weekend = np.where(hours // 24 % 7 >= 5, -0.15, 0.0)
    weather = np.zeros(len(hours))
    for hour in range(1, len(hours)):  # an autoregressive process: each hour remembers 98% of the one before
        weather[hour] = 0.98 * weather[hour - 1] + generator.normal(0, 0.01)
    shape: np.ndarray = 1 + daily + weekend + weather + generator.normal(0, 0.01, len(hours))
    return shape.clip(0.05)


if __name__ == "__main__":
    write_loads(Path(sys.argv[1]), days=366)
