"""AlexNet."""

from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden_plugins.classification.networks._layers import GridAvgPool, init_xavier


class AlexNet(nn.Module):
    """AlexNet: five convolutions, then three fully connected layers with dropout.

    Made for 224 x 224 pixels. At other sizes the last feature map is average-pooled to 5 x 5, so that the
    fully connected layers stay as they are.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        hidden_size: units of each of the two hidden fully connected layers.
        dropout: probability of dropping one of these units.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, a dropout outside 0..1.
        RuntimeError: images too small for the layers.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks",
        2012, section 3.5, on one device and without local response normalization, as in Dive into Deep
        Learning, 8.1.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden_size: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, hidden_size=hidden_size)
        require_probability(dropout=dropout)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 96, kernel_size=11, stride=4, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(96, 256, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(256, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            GridAvgPool(5),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 5 * 5, hidden_size),
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
