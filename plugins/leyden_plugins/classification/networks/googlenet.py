"""GoogLeNet."""

import torch
from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden_plugins.classification.networks._layers import init_xavier


class GoogLeNet(nn.Module):
    """GoogLeNet: nine Inception blocks, each of four parallel paths.

    Without the auxiliary classifiers of the paper.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        dropout: probability of dropping an input of the last layer; 0.4 in the paper, none in the book.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, a dropout outside 0..1.

    Source:
        Szegedy et al., "Going deeper with convolutions", 2015, section 5 and table 1. Dive into Deep
        Learning, 8.4.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_probability(dropout=dropout)
        self.stage1 = nn.Sequential(
            conv_relu(in_channels, 64, kernel_size=7, stride=2, padding=3),
            halve(),
        )
        self.stage2 = nn.Sequential(
            conv_relu(64, 64, kernel_size=1),
            conv_relu(64, 192, kernel_size=3, padding=1),
            halve(),
        )
        self.stage3 = nn.Sequential(
            Inception(192, 64, (96, 128), (16, 32), 32),
            Inception(256, 128, (128, 192), (32, 96), 64),
            halve(),
        )
        self.stage4 = nn.Sequential(
            Inception(480, 192, (96, 208), (16, 48), 64),
            Inception(512, 160, (112, 224), (24, 64), 64),
            Inception(512, 128, (128, 256), (24, 64), 64),
            Inception(512, 112, (144, 288), (32, 64), 64),
            Inception(528, 256, (160, 320), (32, 128), 128),
            halve(),
        )
        self.stage5 = nn.Sequential(
            Inception(832, 256, (160, 320), (32, 128), 128),
            Inception(832, 384, (192, 384), (48, 128), 128),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(1024, num_classes),
        )
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stage2(self.stage1(images))
        x = self.stage5(self.stage4(self.stage3(x)))
        logits: Tensor = self.classifier(x)
        return logits


class Inception(nn.Module):
    """Inception block: four paths over the same feature map, joined along the channels.

    Args:
        in_channels: channels of the feature map.
        path1: channels of the 1 x 1 path.
        path2: channels before and after the 3 x 3 convolution.
        path3: channels before and after the 5 x 5 convolution.
        path4: channels of the pooling path.
    """

    def __init__(
        self, in_channels: int, path1: int, path2: tuple[int, int], path3: tuple[int, int], path4: int
    ) -> None:
        super().__init__()
        self.path1 = conv_relu(in_channels, path1, kernel_size=1)
        self.path2 = nn.Sequential(
            conv_relu(in_channels, path2[0], kernel_size=1),
            conv_relu(path2[0], path2[1], kernel_size=3, padding=1),
        )
        self.path3 = nn.Sequential(
            conv_relu(in_channels, path3[0], kernel_size=1),
            conv_relu(path3[0], path3[1], kernel_size=5, padding=2),
        )
        self.path4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            conv_relu(in_channels, path4, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.path1(x), self.path2(x), self.path3(x), self.path4(x)], dim=1)


def conv_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """A convolution and its ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.ReLU(inplace=True))


def halve() -> nn.MaxPool2d:
    """The max pooling between two stages."""
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
