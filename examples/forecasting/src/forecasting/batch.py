"""What task and data share: windows of time series, and the facts about the series."""

from dataclasses import dataclass
from typing import NamedTuple

from leyden.batches import Facts
from torch import Tensor


@dataclass(frozen=True)
class SeriesFacts(Facts):
    """Facts about a table of time series.

    series_names: the columns, in order.
    history, horizon: rows that a forecast looks at, and rows that it gives.
    season: rows after which a series is expected to repeat itself.
    means, stds: of each series over the training rows, in its own unit.
    naive_errors: of each series, the mean absolute difference from one season before, over the training rows.
    """

    series_names: tuple[str, ...]
    history: int
    horizon: int
    season: int
    means: tuple[float, ...]
    stds: tuple[float, ...]
    naive_errors: tuple[float, ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Other statistics of the same series will do."""
        return [line for line in super().conflicts(other) if not line.startswith(("means", "stds", "naive_errors"))]


class Windows(NamedTuple):
    """Windows of time series, one series each, in its own unit.

    history: (B, T) float32, what is known.
    future: (B, H) float32, the rows that follow; NaN where nobody knows them.
    series: (B,) int64, which series it is.
    means, stds, naive_errors: (B,) float32, those of its series (SeriesFacts).
    """

    history: Tensor
    future: Tensor
    series: Tensor
    means: Tensor
    stds: Tensor
    naive_errors: Tensor

    @staticmethod
    def facts_class() -> type[SeriesFacts]:
        """What is known about such data before the first batch."""
        return SeriesFacts
