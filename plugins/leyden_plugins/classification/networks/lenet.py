"""LeNet-5."""

from typing import Literal

from torch import Tensor, nn

from leyden.options import require_choice, require_positive
from leyden_plugins.classification.networks._layers import Activation, GridAvgPool, activation_layer, init_xavier

POOLINGS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class LeNet(nn.Module):
    """LeNet-5: two convolutions with pooling, then three fully connected layers.

    Made for 28 x 28 pixels. At other sizes the last feature map is average-pooled to 5 x 5, so that the
    fully connected layers stay as they are. A layer with batch normalization after it has no bias of its own.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        activation: what follows each convolution and hidden layer: sigmoid, relu or tanh.
        pooling: how the feature maps are halved: avg or max.
        batch_norm: normalize the batch after each convolution and hidden layer.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes).

    Raises:
        ValueError: a size below 1, an unknown activation or pooling.
        RuntimeError: images too small for the layers.

    Source:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II-B, with the
        layers joined in full. Dive into Deep Learning, 7.6; with batch normalization, 8.5 (Ioffe and
        Szegedy, "Batch normalization", 2015, section 3).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        activation: Activation = "sigmoid",
        pooling: Literal["avg", "max"] = "avg",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_choice("pooling", pooling, tuple(POOLINGS))

        def convolution(inputs: int, outputs: int, padding: int) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel_size=5, padding=padding, bias=not batch_norm)
            norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
            return [layer, *norm, activation_layer(activation), POOLINGS[pooling](kernel_size=2, stride=2)]

        def dense(inputs: int, outputs: int) -> list[nn.Module]:
            layer = nn.Linear(inputs, outputs, bias=not batch_norm)
            norm = [nn.BatchNorm1d(outputs)] if batch_norm else []
            return [layer, *norm, activation_layer(activation)]

        self.features = nn.Sequential(
            *convolution(in_channels, 6, padding=2),
            *convolution(6, 16, padding=0),
            GridAvgPool(5),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            *dense(16 * 5 * 5, 120),
            *dense(120, 84),
            nn.Linear(84, num_classes),
        )
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits
