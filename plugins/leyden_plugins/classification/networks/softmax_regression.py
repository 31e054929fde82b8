"""Softmax regression."""

from torch import Tensor, nn

from leyden.options import require_positive
from leyden_plugins.classification.networks._layers import LazyNormalLinear


class SoftmaxRegression(nn.Module):
    """Softmax regression: one linear layer from the pixels to the classes.

    The number of pixels is taken from the first batch, so one forward pass must come before the weights
    are counted or given to an optimizer. Weights start as N(0, 0.01²), biases as zeros.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes); every batch has the H and W of the first.

    Raises:
        ValueError: a size below 1.

    Source:
        Dive into Deep Learning, 4.1 (the model) and 4.5 (its concise form).
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        self.layers = nn.Sequential(nn.Flatten(), LazyNormalLinear(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits
