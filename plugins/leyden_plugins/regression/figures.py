"""What a regression did, as pictures. points: (N, 2) predictions and targets, or (N, 3) with the only feature."""

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from leyden.draw import NEUTRAL

LARGEST_CLOUD = 5000  # points that are drawn; more are thinned out evenly
POINTS: dict[str, Any] = {"s": 8, "alpha": 0.4, "linewidths": 0}


def prediction_against_truth(points: Tensor, target_name: str) -> Figure:
    """A point for each row; on the diagonal the prediction is right."""
    figure, axes = _axes(f"{target_name}: prediction against truth", "truth", "prediction")
    predictions, targets = _thinned(points)[:, :2].unbind(1)
    axes.scatter(targets.numpy(), predictions.numpy(), **POINTS)
    low, high = points[:, 1].min().item(), points[:, 1].max().item()
    axes.plot([low, high], [low, high], color=NEUTRAL, linewidth=1, label="prediction = truth")
    axes.legend(fontsize="small")
    return figure


def residuals(points: Tensor, target_name: str) -> Figure:
    """Prediction minus truth over the prediction: a shape in it is what the network has missed."""
    figure, axes = _axes(f"{target_name}: residuals", "prediction", "prediction - truth")
    predictions, targets = _thinned(points)[:, :2].unbind(1)
    axes.scatter(predictions.numpy(), (predictions - targets).numpy(), **POINTS)
    axes.axhline(0, color=NEUTRAL, linewidth=1)
    return figure


def fitted_line(points: Tensor, feature_name: str, target_name: str) -> Figure:
    """The prediction as a line over the rows, for a table with one feature."""
    figure, axes = _axes(f"{target_name} over {feature_name}", feature_name, target_name)
    shown = _thinned(points)
    shown = shown[shown[:, 2].argsort()]
    axes.scatter(shown[:, 2].numpy(), shown[:, 1].numpy(), label="rows", **POINTS)
    axes.plot(shown[:, 2].numpy(), shown[:, 0].numpy(), color="tab:orange", label="prediction")
    axes.legend(fontsize="small")
    return figure


def _axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 4.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _thinned(points: Tensor) -> Tensor:
    step = max(1, -(-len(points) // LARGEST_CLOUD))
    return points[torch.arange(0, len(points), step)].float()
