"""ResNet."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from leyden.options import require_choice, require_positive, require_probability
from leyden_plugins.classification.networks._layers import init_xavier

Stem = Literal["7x7", "3x3"]


class ResNet(nn.Module):
    """ResNet of basic blocks: each block learns what to add to its input; the default is ResNet-18.

    Convolutions have no bias, as batch normalization follows each of them, also on a projection shortcut.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        block_counts: residual blocks of each stage; 3,4,6,3 is ResNet-34.
        channels: channels of each stage; the stem has those of the first. Every stage but the first halves
            the image.
        stem: 7x7 (quarters the image) or 3x3 (keeps it; for small images).
        dropout: probability of dropping an input of the last layer.
        zero_init_residual: let each block start as its shortcut alone.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, no stage, lists of different lengths, an unknown stem, a dropout
            outside 0..1.

    Source:
        He et al., "Deep residual learning for image recognition", 2016, sections 3.3 and 4.1, table 1; the
        3x3 stem, section 4.2 (block_counts 3,3,3 and channels 16,32,64 give its ResNet-20, but for the
        projections). Dive into Deep Learning, 8.6. zero_init_residual: Goyal et al., "Accurate, large
        minibatch SGD", 2017, section 5.1.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        block_counts: Sequence[int] = (2, 2, 2, 2),
        channels: Sequence[int] = (64, 128, 256, 512),
        stem: Stem = "7x7",
        dropout: float = 0.0,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_positive(block_counts=block_counts, channels=channels)
        require_choice("stem", stem, ("7x7", "3x3"))
        require_probability(dropout=dropout)
        if len(block_counts) != len(channels):
            raise ValueError(
                f"block_counts has {len(block_counts)} entries and channels {len(channels)}, "
                f"expected as many, one for each stage."
            )
        self.stem = resnet_stem(stem, in_channels, channels[0])
        self.stages = nn.Sequential()
        width = channels[0]
        for stage, (num_blocks, stage_width) in enumerate(zip(block_counts, channels, strict=True)):
            self.stages.append(resnet_stage(num_blocks, width, stage_width, stride=1 if stage == 0 else 2))
            width = stage_width
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )
        init_xavier(self)
        if zero_init_residual:
            self._zero_residuals()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.stages(self.stem(images)))
        return logits

    def _zero_residuals(self) -> None:
        for block in self.modules():
            if isinstance(block, Residual):
                nn.init.zeros_(block.bn2.weight)


class Residual(nn.Module):
    """Basic residual block: two 3 x 3 convolutions plus the shortcut.

    The shortcut is the input itself, or a 1 x 1 convolution of it where the block changes the shape.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)


def resnet_stem(kind: Stem, in_channels: int, out_channels: int) -> nn.Sequential:
    """The layers before the first stage."""
    size, stride = (7, 2) if kind == "7x7" else (3, 1)
    stem = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
    if kind == "7x7":
        stem.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    return stem


def resnet_stage(num_blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Residual blocks of the same width; the first of them may change the shape."""
    first = Residual(in_channels, out_channels, stride)
    return nn.Sequential(first, *(Residual(out_channels, out_channels) for _ in range(num_blocks - 1)))
