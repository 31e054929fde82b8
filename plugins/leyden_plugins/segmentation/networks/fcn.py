"""Fully convolutional network."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from leyden.options import require_choice, require_positive, require_probability
from leyden.trunks import Trunk

Stride = Literal[32, 16, 8]


class FCN(nn.Module):
    """FCN: scores each place of a trunk's last feature map, then upsamples the scores to the image.

    Stride 32 upsamples them in one step. Stride 16 and 8 double them first, once or twice, and add the scores of the
    finer map of that size. Upsampling is by transposed convolutions that begin as bilinear interpolation; they have
    no bias, as the score layers have one. The score layer of the last map begins by Xavier's rule, those of finer maps
    begin as zeros: at first the last map alone decides.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        trunk: a residual network of torchvision, such as resnet18, or timm/NAME for one of timm.
        weights: of the trunk: none for random weights; DEFAULT or another name of torchvision, or for timm
            `pretrained`; or the path of the state dict of the whole classification network.
        stride: of the finest feature map that is scored: 32, 16 or 8.
        head_channels: channels of a 3 x 3 convolution, with batch normalization and ReLU, between the last feature map
            and its scores; it stands for the convolutions that the paper makes of fully connected layers. 0 leaves it
            out, as the book does.
        dropout: probability of dropping an input of the last map's score layer.
        learn_upsampling: train the last upsampling, as the book does. The paper keeps it bilinear.

    Shape:
        (B, in_channels, H, W), of any H and W, to logits (B, num_classes, H, W).

    Raises:
        ValueError: a size below 1, an unknown stride, a dropout outside 0..1, a trunk or weights that cannot be. In
            training, where batch normalization sees only one place: one image of at most 32 x 32 pixels.
        ImportError: timm is not installed.
        OSError: weights that cannot be downloaded.

    Source:
        Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015, sections 3.3 and
        4.2. Dive into Deep Learning, 14.11 (stride 32 on ResNet-18).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        trunk: str = "resnet18",
        weights: str | None = None,
        stride: Stride = 32,
        head_channels: int = 0,
        dropout: float = 0.0,
        learn_upsampling: bool = True,
    ) -> None:
        super().__init__()
        require_positive(num_classes=num_classes)
        require_choice("stride", stride, (32, 16, 8))
        require_probability(dropout=dropout)
        if head_channels < 0:
            raise ValueError(f"head_channels is {head_channels}, expected 0 or more.")
        self.trunk = Trunk(in_channels, trunk, weights, [each for each in (8, 16, 32) if each >= stride])
        *finer, last = self.trunk.channels
        self.head = fcn_head(last, head_channels, dropout)
        self.score = score_layer(head_channels or last, num_classes, nn.init.xavier_uniform_)
        self.skip_scores = nn.ModuleList(
            score_layer(channels, num_classes, nn.init.zeros_) for channels in reversed(finer)
        )
        self.doublings = nn.ModuleList(bilinear_upsampling(num_classes, 2) for _ in finer)
        self.upsampling: nn.Module = bilinear_upsampling(num_classes, stride)
        if not learn_upsampling:
            self.upsampling = nn.Upsample(scale_factor=stride, mode="bilinear")

    def forward(self, images: Tensor) -> Tensor:
        *finer, last = self.trunk(images)
        scores = self.score(self.head(last))
        for x, score, double in zip(reversed(finer), self.skip_scores, self.doublings, strict=True):
            scores = crop_like(double(scores), x) + score(x)
        return crop_like(self.upsampling(scores), images)


def fcn_head(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    """What lies between the last feature map and its score layer."""
    head = nn.Sequential()
    if channels:
        head.append(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False))
        head.append(nn.BatchNorm2d(channels))
        head.append(nn.ReLU(inplace=True))
    return head.append(nn.Dropout(dropout))


def score_layer(in_channels: int, num_classes: int, init: Callable[[Tensor], Tensor]) -> nn.Conv2d:
    """The 1 x 1 convolution that scores each place of a map; `init` sets its weights, its biases are zeros."""
    layer = nn.Conv2d(in_channels, num_classes, kernel_size=1)
    init(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that enlarges maps by an even factor, at first by bilinear interpolation.

    Beyond the border it interpolates towards zero, so that up to half a factor from it the two differ.
    """
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, 2 * factor))
    return layer


def bilinear_kernel(channels: int, kernel_size: int) -> Tensor:
    """Weights (channels, channels, kernel_size, kernel_size) that make a transposed convolution interpolate bilinearly.

    Each channel keeps to itself. The stride that they are for is (kernel_size + 1) // 2.
    """
    factor = (kernel_size + 1) // 2
    distances = (torch.arange(kernel_size) - (kernel_size - 1) / 2).abs()
    weights = 1 - distances / factor
    return torch.eye(channels)[:, :, None, None] * torch.outer(weights, weights)


def crop_like(x: Tensor, other: Tensor) -> Tensor:
    """The upper left part of x (..., H, W) that has the height and width of `other`."""
    height, width = other.shape[-2:]
    return x[..., :height, :width]
