"""Single-shot detector on the trunk of any classification network."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from leyden.options import require_choice, require_positive
from leyden.trunks import Trunk
from leyden_plugins.detection.anchors import AnchorGrid, AnchorOutputs
from leyden_plugins.detection.networks._heads import AnchorHeads

COARSEST_OF_TRUNK = 32  # pixels for which a place of the trunk's last map stands
SIZES = ((0.08, 0.113), (0.16, 0.226), (0.32, 0.453), (0.64, 0.905))


class SSD(nn.Module):
    """SSD: a trunk, a feature pyramid that tells its fine maps what the coarse ones see, and heads on each map.

    Maps coarser than the trunk's are made by convolutions of stride 2. All maps of the pyramid have batch
    normalization and ReLU behind them. Images whose sides are multiples of the coarsest stride are best.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes, the background not among them.
        trunk: a residual network of torchvision, such as resnet18, or timm/NAME for one of timm.
        weights: of the trunk: none for random weights; DEFAULT or another name of torchvision, or for timm
            `pretrained`; or the path of the state dict of the whole classification network.
        channels: of each map of the pyramid.
        finest_stride: pixels of an image for which a place of the first map stands: 4, 8 or 16; doubled for each
            further map.
        sizes: for each map, the finest first, heights of square anchors as shares of the image's height.
        ratios: width over height of the anchors.
        background: the probability that each anchor gives to the background at first; none leaves it to chance.

    Shape:
        (B, in_channels, H, W), of any H and W, to logits (B, A, num_classes + 1) and offsets (B, A, 4) of A anchors.

    Raises:
        ValueError: a size below 1, a stride, anchors, a background, a trunk or weights that cannot be.
        ImportError: timm is not installed.
        OSError: weights that cannot be downloaded.

    Source:
        Liu et al., "SSD: Single shot multibox detector", 2016; Lin et al., "Feature pyramid networks for object
        detection", 2017, section 3; for `background` Lin et al., "Focal loss for dense object detection", 2017, 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        trunk: str = "resnet18",
        weights: str | None = None,
        channels: int = 128,
        finest_stride: Literal[4, 8, 16] = 8,
        sizes: Sequence[Sequence[float]] = SIZES,
        ratios: Sequence[float] = (1.0, 2.0, 0.5),
        background: float | None = 0.99,
    ) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, channels=channels)
        require_choice("finest_stride", finest_stride, (4, 8, 16))
        self.anchors = AnchorGrid(sizes, ratios)
        strides = [finest_stride * 2**level for level in range(len(sizes))]
        self.trunk = Trunk(in_channels, trunk, weights, [each for each in strides if each <= COARSEST_OF_TRUNK])
        self.pyramid = FeaturePyramidNetwork(list(self.trunk.channels), channels, norm_layer=nn.BatchNorm2d)
        self.activation = nn.ReLU(inplace=True)
        self.coarser = nn.ModuleList(halving(channels) for each in strides if each > COARSEST_OF_TRUNK)
        self.heads = AnchorHeads([channels] * len(sizes), num_classes, self.anchors, background)

    def forward(self, images: Tensor) -> AnchorOutputs:
        names = map(str, self.trunk.strides)
        pyramid = self.pyramid(OrderedDict(zip(names, self.trunk(images), strict=True)))
        maps = [self.activation(x) for x in pyramid.values()]
        for halve in self.coarser:
            maps.append(halve(maps[-1]))
        outputs: AnchorOutputs = self.heads(maps)
        return outputs


def halving(channels: int) -> nn.Sequential:
    """A 3 x 3 convolution of stride 2 with batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
