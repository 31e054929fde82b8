"""MeanLoss: the mean loss of an epoch; Perplexity: the same of tokens; how the metrics of single classes are called."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """The weighted mean of losses, over all batches and processes.

    torchmetrics' own MeanMetric drops the weights when it does not look for NaN (1.9: `nan_strategy="disable"`), and
    to look for NaN makes every batch wait for the device.
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, losses: Tensor, weights: Tensor | int) -> None:
        """Losses: a scalar, or (N,) with a weight for each."""
        self.total += (losses.float() * weights).sum()
        self.weight += weights.sum() if isinstance(weights, Tensor) else weights

    def compute(self) -> Tensor:
        """NaN where there were no losses."""
        return self.total / self.weight


# torchmetrics.text.Perplexity takes the logits of every token, (B, T, V), and normalises them once more: training would
# do twice what takes most of a small network's step. The losses say as much.


class Perplexity(MeanLoss):
    """exp of the mean loss: among how many equally likely symbols the network wavers."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """NaN where there were no tokens."""
        return super().compute().exp()


def names_of_classes(prefix: str, class_names: Sequence[str]) -> list[str]:
    """The name of each class's metric: `iou_potted_plant`; with its index where names alone would not tell them apart.

    A metric's name has small letters, digits and underscores.
    """
    names = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in class_names]
    if "" in names or len(set(names)) < len(names):
        names = [f"{name}_{index}".strip("_") for index, name in enumerate(names)]
    return [f"{prefix}_{name}" for name in names]
