"""Network in network."""

from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden_plugins.classification.networks._layers import init_xavier


class NiN(nn.Module):
    """Network in network: 1 x 1 convolutions after each convolution, and no fully connected layer.

    The last block has one channel for each class; its average over the image is the logit. The blocks end in
    a ReLU, so logits are never negative.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        dropout: probability of dropping an input of the last block.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, a dropout outside 0..1.
        RuntimeError: images too small for the layers.

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3. Dive into Deep Learning, 8.3.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_probability(dropout=dropout)
        self.features = nn.Sequential(
            nin_block(in_channels, 96, kernel_size=11, stride=4),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nin_block(96, 256, kernel_size=5, padding=2),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nin_block(256, 384, kernel_size=3, padding=1),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Dropout(dropout),
            nin_block(384, num_classes, kernel_size=3, padding=1),
        )
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def nin_block(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """A convolution and two 1 x 1 convolutions, each with a ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(inplace=True),
    )
