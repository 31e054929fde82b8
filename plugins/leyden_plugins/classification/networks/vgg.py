"""VGG."""

from collections.abc import Sequence

from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden_plugins.classification.networks._layers import GridAvgPool, init_xavier


class VGG(nn.Module):
    """VGG: blocks of 3 x 3 convolutions, each halving the image, then three fully connected layers.

    Made for 224 x 224 pixels and five blocks. Otherwise the last feature map is average-pooled to 7 x 7, so
    that the fully connected layers stay as they are.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        conv_blocks: (number of convolutions, channels) of each block; the default is VGG-11.
        width_factor: multiplies the channels of all blocks; 0.25 is the book's size for Fashion-MNIST.
        hidden_size: units of each of the two hidden fully connected layers.
        dropout: probability of dropping one of these units.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, no block, a width_factor that is not above 0, a dropout outside 0..1.
        RuntimeError: images too small for the layers.

    Source:
        Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015,
        section 2 and table 1 (VGG-11 is column A). Dive into Deep Learning, 8.2.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_blocks: Sequence[tuple[int, int]] = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
        width_factor: float = 1.0,
        hidden_size: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, hidden_size=hidden_size)
        require_probability(dropout=dropout)
        blocks: list[nn.Module] = []
        channels = in_channels
        for num_convs, width in _scaled(conv_blocks, width_factor):
            blocks.append(vgg_block(num_convs, channels, width))
            channels = width
        self.features = nn.Sequential(*blocks, GridAvgPool(7))
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * 7 * 7, hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, num_classes),
        )
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def vgg_block(num_convs: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """`num_convs` 3 x 3 convolutions that keep the image size, then max pooling that halves it."""
    layers: list[nn.Module] = []
    for inputs in [in_channels] + [out_channels] * (num_convs - 1):
        layers += [nn.Conv2d(inputs, out_channels, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(kernel_size=2, stride=2))


def _scaled(conv_blocks: Sequence[tuple[int, int]], factor: float) -> list[tuple[int, int]]:
    if not conv_blocks or any(len(block) != 2 or min(block) < 1 for block in conv_blocks):
        raise ValueError(f"conv_blocks is {list(conv_blocks)}, expected pairs (convolutions, channels) of at least 1.")
    if not factor > 0:
        raise ValueError(f"width_factor is {factor}, expected a number above 0.")
    return [(num_convs, max(1, round(channels * factor))) for num_convs, channels in conv_blocks]
