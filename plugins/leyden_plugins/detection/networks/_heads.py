"""Heads: what says of each anchor of each feature map what it shows, and where exactly."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leyden_plugins.detection.anchors import AnchorGrid, AnchorOutputs


class AnchorHeads(nn.Module):
    """A class head and a box head, each a 3 x 3 convolution, for each feature map.

    Args:
        channels: of each map.
        num_classes: number of classes, the background not among them.
        grid: the anchors.
        background: the probability that the class head gives to the background at first; none leaves it to chance.

    Raises:
        ValueError: a background that is not above 0 and below 1.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, grid: AnchorGrid, background: float | None = None
    ) -> None:
        super().__init__()
        if background is not None and not 0 < background < 1:
            raise ValueError(f"background is {background}, expected a probability above 0 and below 1.")
        self.num_logits = num_classes + 1
        per_map = list(zip(channels, grid.per_place, strict=True))
        self.class_heads = nn.ModuleList(_head(width, count * self.num_logits) for width, count in per_map)
        self.box_heads = nn.ModuleList(_head(width, count * 4) for width, count in per_map)
        if background is not None:
            for head, count in zip(self.class_heads, grid.per_place, strict=True):
                _favour_background(head, count, num_classes, background)

    def forward(self, maps: Sequence[Tensor]) -> AnchorOutputs:
        """Maps (B, C, h, w) to what is said of all their anchors."""
        logits = [_flat(head(x), self.num_logits) for head, x in zip(self.class_heads, maps, strict=True)]
        offsets = [_flat(head(x), 4) for head, x in zip(self.box_heads, maps, strict=True)]
        map_sizes = tuple((x.shape[2], x.shape[3]) for x in maps)
        return AnchorOutputs(torch.cat(logits, dim=1), torch.cat(offsets, dim=1), map_sizes)


def _head(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _flat(x: Tensor, values: int) -> Tensor:
    """(B, anchors * values, h, w) to (B, h * w * anchors, values)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)


@torch.no_grad()
def _favour_background(head: nn.Module, count: int, num_classes: int, probability: float) -> None:
    # Lin et al. 2017, section 3.3: else all the background makes the first steps too large
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    head.bias.view(count, num_classes + 1)[:, 0] = math.log(num_classes * probability / (1 - probability))
