"""TinySSD, the network of the book's section on single-shot multibox detection."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from leyden.options import require_positive
from leyden_plugins.detection.anchors import AnchorGrid, AnchorOutputs
from leyden_plugins.detection.networks._heads import AnchorHeads

FURTHER_HALVINGS = 3  # after the first map, and before the last, which pools all that is left


class TinySSD(nn.Module):
    """TinySSD: five feature maps, each half as large as the one before, the last of a single place.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes, the background not among them.
        base_channels: of the blocks before the first feature map, each of which halves the image.
        channels: of the further feature maps.
        sizes: for each of the five maps, heights of square anchors as shares of the image's height.
        ratios: width over height of the anchors.
        background: the probability that each anchor gives to the background at first; none leaves it to chance, as the
            book does.

    Shape:
        (B, in_channels, H, W), of any H and W from 64 pixels on (with three blocks before the first map), to logits
        (B, A, num_classes + 1) and offsets (B, A, 4) of A anchors: 5,444 at 256 x 256.

    Raises:
        ValueError: a size below 1, anchors that are not for five maps, a background that cannot be, too small images.

    Source:
        Dive into Deep Learning, 14.7; Liu et al., "SSD: Single shot multibox detector", 2016.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        base_channels: Sequence[int] = (16, 32, 64),
        channels: int = 128,
        sizes: Sequence[Sequence[float]] = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961)),
        ratios: Sequence[float] = (1.0, 2.0, 0.5),
        background: float | None = None,
    ) -> None:
        super().__init__()
        require_positive(
            in_channels=in_channels, num_classes=num_classes, channels=channels, base_channels=base_channels
        )
        if len(sizes) != 5:
            raise ValueError(f"sizes is for {len(sizes)} feature maps, expected sizes for 5, the finest first.")
        self.anchors = AnchorGrid(sizes, ratios)
        self.smallest_side = 2 ** (len(base_channels) + FURTHER_HALVINGS)
        last = base_channels[-1]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*(down_sampling(*pair) for pair in pairwise([in_channels, *base_channels]))),
                *(down_sampling(*pair) for pair in pairwise([last, *FURTHER_HALVINGS * [channels]])),
                nn.AdaptiveMaxPool2d(1),
            ]
        )
        self.heads = AnchorHeads([last, *(FURTHER_HALVINGS + 1) * [channels]], num_classes, self.anchors, background)

    def forward(self, images: Tensor) -> AnchorOutputs:
        if min(images.shape[-2:]) < self.smallest_side:
            found = f"{images.shape[-2]} x {images.shape[-1]} pixels"
            raise ValueError(f"TinySSD cannot take {found}: expected {self.smallest_side} or more in each direction.")
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        outputs: AnchorOutputs = self.heads(maps)
        return outputs


def down_sampling(in_channels: int, channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch normalization and ReLU, and a max-pooling that halves the map."""
    block = nn.Sequential()
    for width in (in_channels, channels):
        block.append(nn.Conv2d(width, channels, kernel_size=3, padding=1, bias=False))
        block.append(nn.BatchNorm2d(channels))
        block.append(nn.ReLU(inplace=True))
    return block.append(nn.MaxPool2d(2))
