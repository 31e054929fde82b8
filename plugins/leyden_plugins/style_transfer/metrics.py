"""LossParts: the three losses of style transfer, each for itself."""

import torch
from torch import Tensor
from torchmetrics import Metric

PARTS = ("content_loss", "style_loss", "tv_loss")


class LossParts(Metric):
    """The means over all pictures of content, style and total variation loss."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(len(PARTS)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, losses: Tensor) -> None:
        """Losses: (B, 3), in the order of PARTS."""
        self.total += losses.sum(dim=0)
        self.count += len(losses)

    def compute(self) -> dict[str, Tensor]:
        """One number for each; NaN where there were no pictures."""
        return dict(zip(PARTS, self.total / self.count, strict=True))
