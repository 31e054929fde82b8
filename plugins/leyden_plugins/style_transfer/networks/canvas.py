"""Canvas: the pictures that are painted. Their pixels are the parameters."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of red, green and blue
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue; ITU-R BT.601
Size = tuple[int, int]  # height, width in pixels


class Canvas(nn.Module):
    """Pictures that are painted, each the sum of layers from coarse to fine, enlarged to the picture's size.

    A layer holds pixels in units of ImageNet's standard deviation, so that learning rates that are told for normalised
    pictures serve. Before painting, all are 0.

    Args:
        sizes: height and width in pixels of each picture.
        stages: layers of a picture; each has twice the side of the one before, the last has the picture's size.
        luminance: layers are grey, and a picture has the colours that it started with.

    Shape:
        forward(chosen, stage): n indices of pictures whose layer of the stage has one size, to these layers: RGB
        (n, 3, h, w), [0, 1] but not clamped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Sequence[Size], stages: int = 1, luminance: bool = False) -> None:
        super().__init__()
        self.stages = stages
        self.luminance = luminance
        channels = 1 if luminance else 3
        self.layers = nn.ModuleList(
            nn.ParameterList(torch.zeros(1, channels, *stage_size(size, stage, stages)) for stage in range(stages))
            for size in sizes
        )
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        for name, values in {"mean": mean, "std": std}.items():
            shared = values.mean(dim=0, keepdim=True) if luminance else values
            self.register_buffer(name, shared, persistent=False)
        for index, size in enumerate(sizes if luminance else ()):
            self.register_buffer(f"colours_{index}", torch.zeros(1, 3, *size))  # what is added to the luminance

    def forward(self, chosen: Sequence[int], stage: int) -> Tensor:
        normalized = torch.cat([self._layers(index)[stage] for index in chosen])
        return (normalized * self.std + self.mean).expand(-1, 3, -1, -1)

    def picture(self, index: int) -> Tensor:
        """A picture as far as it is painted: (1, 3, H, W), [0, 1] but not clamped; without its own colours."""
        normalized = self._sum(index, self.stages - 1)
        return (normalized * self.std + self.mean).expand(-1, 3, -1, -1)

    def finished(self, index: int) -> Tensor:
        """A picture to look at: (1, 3, H, W) in [0, 1], in steps of 1 / 255, with its own colours where they are kept.

        That is what a file of 8 bits holds.
        """
        picture = self.picture(index)
        if self.luminance:
            picture = picture + self.get_buffer(f"colours_{index}")
        return picture.clamp(0, 1).mul(255).round().div(255)

    @torch.no_grad()
    def clamp_(self, stage: int) -> None:
        """Bring the layers of a stage back to what can be shown: pictures, with their own colours, in [0, 1]."""
        for index in range(len(self.layers)):
            layer = self._layers(index)[stage]
            darkest, brightest = torch.zeros_like(self.mean), torch.ones_like(self.mean)
            if self.luminance:
                colours = resized(self.get_buffer(f"colours_{index}"), (layer.shape[2], layer.shape[3]))
                darkest, brightest = -colours.amin(dim=1, keepdim=True), 1 - colours.amax(dim=1, keepdim=True)
            layer.clamp_((darkest - self.mean) / self.std, (brightest - self.mean) / self.std)

    @torch.no_grad()
    def start(self, index: int, picture: Tensor, content: Tensor) -> None:
        """Begin with a picture (1, 3, h, w) of any size; `content`, at the canvas's size, gives the colours."""
        if self.luminance:
            picture = luminance(picture)
            self.get_buffer(f"colours_{index}").copy_(content - luminance(content))
        coarsest = self._layers(index)[0]
        normalized = (picture.to(coarsest) - self.mean) / self.std
        coarsest.copy_(resized(normalized, (coarsest.shape[2], coarsest.shape[3])))

    @torch.no_grad()
    def refine(self, stage: int) -> None:
        """Move what was painted into the layers of a stage; a second time changes nothing."""
        for index in range(len(self.layers)):
            so_far = self._sum(index, stage)
            *coarser, layer = self._layers(index)[: stage + 1]
            layer.copy_(so_far)
            for each in coarser:
                each.zero_()

    def finest(self) -> int:
        """The last stage in which anything was painted; -1 before the start."""
        each = [enumerate(self._layers(index)) for index in range(len(self.layers))]
        return max((stage for layers in each for stage, layer in layers if layer.any()), default=-1)

    def _layers(self, index: int) -> Sequence[Tensor]:
        return self.layers[index]  # type: ignore[return-value]

    def _sum(self, index: int, stage: int) -> Tensor:
        total, *finer = self._layers(index)[: stage + 1]
        for layer in finer:
            total = resized(total, (layer.shape[2], layer.shape[3])) + layer
        return total


def stage_size(size: Size, stage: int, stages: int) -> Size:
    """The size of a picture in a stage, the last of which has its whole size: halved for each stage before that."""
    height, width = (max(1, round(side / 2 ** (stages - 1 - stage))) for side in size)
    return height, width


def resized(images: Tensor, size: Size) -> Tensor:
    """Images (B, C, H, W) in another size, by linear interpolation with antialiasing."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def luminance(images: Tensor) -> Tensor:
    """RGB images (B, 3, H, W) in grey: (B, 1, H, W)."""
    weights = images.new_tensor(LUMINANCE)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)
