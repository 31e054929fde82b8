"""DenseNet."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leyden.options import require_positive
from leyden_plugins.classification.networks._layers import init_xavier


class DenseNet(nn.Module):
    """DenseNet: within a block, each layer sees the outputs of all layers before it.

    Between two blocks, a transition halves the channels and the image. Convolutions have no bias, as batch
    normalization takes away any constant.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        growth_rate: channels that each convolution adds.
        block_counts: convolutions of each dense block.
        stem_channels: channels before the first dense block.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, no block.
        RuntimeError: images too small for the layers.

    Source:
        Huang et al., "Densely connected convolutional networks", 2017, section 3, without the bottleneck
        layers. Dive into Deep Learning, 8.7.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        growth_rate: int = 32,
        block_counts: Sequence[int] = (4, 4, 4, 4),
        stem_channels: int = 64,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_positive(growth_rate=growth_rate, block_counts=block_counts, stem_channels=stem_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(stem_channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential()
        channels = stem_channels
        for index, num_convs in enumerate(block_counts):
            if index > 0:
                self.blocks.append(transition(channels, channels // 2))
                channels //= 2
            self.blocks.append(DenseBlock(num_convs, channels, growth_rate))
            channels += num_convs * growth_rate
        self.classifier = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(images)))
        return logits


class DenseBlock(nn.Module):
    """Convolutions that each add `growth_rate` channels to all the channels before."""

    def __init__(self, num_convs: int, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv_block(in_channels + index * growth_rate, growth_rate, kernel_size=3) for index in range(num_convs)
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.cat([x, conv(x)], dim=1)
        return x


def conv_block(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Batch normalization, ReLU and a convolution that keeps the image size, in this order."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
    )


def transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """What stands between two dense blocks: fewer channels, half the image."""
    return nn.Sequential(conv_block(in_channels, out_channels, kernel_size=1), nn.AvgPool2d(kernel_size=2, stride=2))
