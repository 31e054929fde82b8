"""The network: pure torch, usable without leyden."""

from torch import Tensor, nn


class NewTaskNet(nn.Module):
    """A convolutional network for signals: three convolutions that halve the length, the mean over time, one layer.

    Args:
        num_classes: number of classes.
        channels: feature maps of the first convolution; the second and third have twice and four times as many.
        kernel_size: samples that a convolution sees, an odd number.

    Shape:
        (B, L) float32 to logits (B, num_classes).

    Raises:
        ValueError: a number below 1, or an even kernel_size.
    """

    def __init__(self, num_classes: int, channels: int = 16, kernel_size: int = 9) -> None:
        super().__init__()
        if min(num_classes, channels, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ValueError(f"channels is {channels} and kernel_size {kernel_size}; expected 1 or more, and odd.")
        self.features = nn.Sequential(
            _halving(1, channels, kernel_size),
            _halving(channels, 2 * channels, kernel_size),
            _halving(2 * channels, 4 * channels, kernel_size),
        )
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(self, samples: Tensor) -> Tensor:
        features: Tensor = self.features(samples.unsqueeze(1))  # (B, C, L / 8)
        logits: Tensor = self.classifier(features.mean(dim=2))
        return logits


def _halving(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel_size, stride=2, padding=kernel_size // 2, bias=False),
        nn.BatchNorm1d(out_channels),
        nn.ReLU(inplace=True),
    )
