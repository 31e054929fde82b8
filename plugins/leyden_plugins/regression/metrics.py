"""The metrics of regression that torchmetrics does not have in this form."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, R2Score


class CentredR2(R2Score):
    """Coefficient of determination, computed around a centre: its float32 sums then keep their digits.

    Args:
        centre: about the mean of the targets. The result does not depend on it.
    """

    def __init__(self, centre: float) -> None:
        super().__init__()
        self.centre = centre

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Predictions and targets (N,)."""
        super().update(preds - self.centre, target - self.centre)

    def compute(self) -> Tensor:
        """NaN for a single row, of which nothing can be explained."""
        return super().compute() if self.total > 1 else torch.tensor(torch.nan, device=self.device)


class RootMeanSquaredLogError(MeanSquaredError):
    """Root of the mean squared difference of logarithms: relative errors, for positive targets.

    Args:
        floor: predictions below it count as it; a linear model may predict what has no logarithm.

    Source:
        Dive into Deep Learning, 5.7.4.
    """

    def __init__(self, floor: float) -> None:
        super().__init__(squared=False)
        self.floor = floor

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Predictions and positive targets (N,)."""
        super().update(preds.clamp(min=self.floor).log(), target.log())


class Points(Metric):
    """What pictures are drawn of: prediction and target of each row, and its feature where there is only one."""

    points: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("points", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, features: Tensor) -> None:
        """Predictions and targets (N,), features (N, F)."""
        columns = [preds, target, features[:, 0]] if features.shape[1] == 1 else [preds, target]
        self.points.append(torch.stack(columns, dim=1))

    def compute(self) -> Any:
        """(N, 2) predictions and targets, or (N, 3) with the feature."""
        points: Any = self.points  # one tensor already, where several processes were joined
        return torch.cat(points) if isinstance(points, list) else points
