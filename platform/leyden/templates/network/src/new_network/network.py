"""The network: pure torch, usable without leyden."""

from torch import Tensor, nn


class NewNetwork(nn.Module):
    """A small network for pictures: three convolutions that halve them, the mean over what is left, one layer.

    The first two arguments come from the data, by position. All others are options of the command line, where
    `--help` shows what is said of them here.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        channels: feature maps of the first convolution; the second and third have twice and four times as many.

    Shape:
        (B, in_channels, H, W) float32 to logits (B, num_classes).

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, in_channels: int, num_classes: int, channels: int = 16) -> None:
        super().__init__()
        if min(in_channels, num_classes, channels) < 1:
            raise ValueError(f"channels is {channels}, expected a number of at least 1.")
        self.features = nn.Sequential(
            _halving(in_channels, channels),
            _halving(channels, 2 * channels),
            _halving(2 * channels, 4 * channels),
        )
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images)  # (B, C, H / 8, W / 8)
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


def _halving(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
