"""MASE: forecasts measured against the simplest one there is."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanAbsoluteScaledError(Metric):
    """The mean absolute error, each series' divided by that of repeating its last season; below 1 is better than that.

    Source: Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006, section 3.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, forecasts: Tensor, future: Tensor, naive_errors: Tensor) -> None:
        """forecasts, future: (B, H) in the series' units. naive_errors: (B,) of the series, over the training rows."""
        self.total += ((forecasts - future).abs() / naive_errors[:, None]).sum()
        self.count += future.numel()

    def compute(self) -> Tensor:
        """NaN where there were no forecasts."""
        return self.total / self.count
