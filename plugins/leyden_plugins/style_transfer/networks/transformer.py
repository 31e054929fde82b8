"""The image transformation network of fast style transfer."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from leyden.options import require_choice, require_positive

Upsampling = Literal["nearest", "transposed"]
STRIDE = 4  # pixels, in each direction, for which a place of the narrowest map stands
SMALLEST_SIDE = 2 * STRIDE  # pixels; convolutions that mirror the border need two places


class ImageTransformNet(nn.Module):
    """Johnson's image transformation network: paints a picture anew, in one pass, at its own size.

    Two strided convolutions, residual blocks at a quarter of the size, two upsamplings, between 9 x 9 convolutions.
    Unlike the paper's, it normalizes each picture by itself, mirrors the border where a convolution needs what is
    beyond it, and enlarges before it convolves, which leaves no checkerboard.

    Args:
        in_channels: channels of a picture, and of what is made of it.
        width: channels at the picture's full size; twice as many at half, four times as many at a quarter of it.
        num_blocks: residual blocks.
        upsampling: `nearest` repeats each place, then convolves; `transposed` is the paper's transposed convolution.
        skip: what is painted is added to the picture, before the scaled tanh. The paper's network begins with noise and
            has to learn first what its content looks like; this one begins with it, which short trainings need.

    Shape:
        (B, in_channels, H, W) with pixels in [0, 1], of any H and W, to the same. Pictures are continued by their
        border pixels, on the right and below, to a multiple of 4 and at least 8.

    Raises:
        ValueError: a size below 1, an unknown upsampling.

    Source:
        Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", 2016,
        section 3.1 and table 1 of the supplementary material. Instance normalization: Ulyanov, Vedaldi and Lempitsky,
        "Improved texture networks", 2017, section 3. Upsampling: Odena, Dumoulin and Olah, "Deconvolution and
        checkerboard artifacts", 2016.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 32,
        num_blocks: int = 5,
        upsampling: Upsampling = "nearest",
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.skip = skip
        require_positive(in_channels=in_channels, width=width, num_blocks=num_blocks)
        require_choice("upsampling", upsampling, ("nearest", "transposed"))
        self.encode = nn.Sequential(
            *conv_norm_relu(in_channels, width, kernel_size=9),
            *conv_norm_relu(width, 2 * width, kernel_size=3, stride=2),
            *conv_norm_relu(2 * width, 4 * width, kernel_size=3, stride=2),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(num_blocks)))
        self.decode = nn.Sequential(
            *upsample(4 * width, 2 * width, upsampling),
            *upsample(2 * width, width, upsampling),
            mirrored_conv(width, in_channels, kernel_size=9, bias=True),
        )

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = self.decode(self.blocks(self.encode(pad_to_stride(images))))[..., :height, :width]
        if self.skip:
            x = x + 2 * images - 1
        painted: Tensor = 0.5 * (x.tanh() + 1)  # the paper's scaled tanh, to [0, 1]
        return painted


class ResidualBlock(nn.Module):
    """Adds to its input what two convolutions make of it; no ReLU follows (Johnson et al., supplementary, figure 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm_relu(channels, channels, kernel_size=3),
            mirrored_conv(channels, channels, kernel_size=3),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.residual(x)
        return out


def pad_to_stride(images: Tensor) -> Tensor:
    """Images (B, C, H, W) continued by their border pixels, on the right and below, to a size for the network."""
    sides = images.shape[-2:]
    height, width = (max(SMALLEST_SIDE, side + -side % STRIDE) for side in sides)
    if (height, width) == tuple(sides):
        return images
    return F.pad(images, (0, width - sides[1], 0, height - sides[0]), mode="replicate")


def mirrored_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that sees the picture mirrored beyond its border. Without a bias, as a norm would take it away."""
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias, padding_mode="reflect")


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution, instance normalization and ReLU."""
    return [mirrored_conv(in_channels, out_channels, kernel_size, stride), *norm_relu(out_channels)]


def upsample(in_channels: int, out_channels: int, upsampling: Upsampling) -> list[nn.Module]:
    """Layers that double height and width."""
    if upsampling == "nearest":
        return [nn.Upsample(scale_factor=2), *conv_norm_relu(in_channels, out_channels, kernel_size=3)]
    transposed = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False)
    return [transposed, *norm_relu(out_channels)]


def norm_relu(channels: int) -> list[nn.Module]:
    """Instance normalization with a learnt scale and shift, and ReLU."""
    return [nn.InstanceNorm2d(channels, affine=True), nn.ReLU(inplace=True)]
