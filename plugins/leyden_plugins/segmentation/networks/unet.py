"""U-Net."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden.trunks import pad_to_multiple


class UNet(nn.Module):
    """U-Net: a contracting path of convolutions, and an expanding one that sees the maps of the contracting one.

    As in the paper, but with padded convolutions, so that logits are as large as the image, and with batch
    normalization, which takes away the convolutions' biases.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        channels: of each level of the contracting path, from the image's size down; each level but the first halves
            the image.
        dropout: probability of dropping a number at the end of the contracting path.

    Shape:
        (B, in_channels, H, W), of any H and W, to logits (B, num_classes, H, W). Images are padded with zeros, on the
        right and below, until they can be halved.

    Raises:
        ValueError: a size below 1, no level, a dropout outside 0..1. In training, where batch normalization sees only
            one place: one image of at most 2^(levels - 1) pixels in each direction.

    Source:
        Ronneberger, Fischer and Brox, "U-Net: Convolutional networks for biomedical image segmentation", 2015, figure
        1 and section 3 (initialisation, dropout).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, channels=channels)
        require_probability(dropout=dropout)
        *finer, bottom = channels
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        inputs = in_channels
        for width in finer:
            self.down.append(double_conv(inputs, width))
            inputs = width
        self.halve = nn.MaxPool2d(kernel_size=2)
        self.bottom = nn.Sequential(double_conv(inputs, bottom), nn.Dropout(dropout))
        inputs = bottom
        for width in reversed(finer):
            self.up.append(Expand(inputs, width))
            inputs = width
        self.score = nn.Conv2d(inputs, num_classes, kernel_size=1)
        init_gaussian(self)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = pad_to_multiple(images, 2 ** len(self.down))
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = self.halve(skips[-1])
        x = self.bottom(x)
        for expand, skip in zip(self.up, reversed(skips), strict=True):
            x = expand(x, skip)
        logits: Tensor = self.score(x)
        return logits[..., :height, :width]


class Expand(nn.Module):
    """Doubles a map while it halves its channels, puts it behind the contracting path's map, and convolves both."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.convs = double_conv(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.convs(torch.cat([skip, self.enlarge(x)], dim=1))
        return out


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with batch normalization and ReLU."""
    layers: list[nn.Module] = []
    for inputs in (in_channels, out_channels):
        layers.append(nn.Conv2d(inputs, out_channels, kernel_size=3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def init_gaussian(network: nn.Module) -> None:
    """Draw weights from N(0, 2 / n), where n numbers go into one of a layer's outputs; biases become zeros."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=(2 / layer.in_channels) ** 0.5)  # its kernels do not overlap
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
