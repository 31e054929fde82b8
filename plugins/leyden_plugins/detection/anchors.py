"""Anchors: the boxes that are laid over an image before anything is known of it, at each place of each feature map."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]  # height, width


class AnchorOutputs(NamedTuple):
    """What a detection network says of images.

    logits: (B, A, num_classes + 1) of each anchor, of the background first.
    offsets: (B, A, 4) from each anchor to the box of the thing that it shows, as of `offsets.encode`.
    map_sizes: height and width of each feature map. Anchors follow each other map by map, in each map row by row, and
        at each place in the order of `AnchorGrid`.
    """

    logits: Tensor
    offsets: Tensor
    map_sizes: tuple[Size, ...]


class AnchorGrid:
    """The anchors of a network's feature maps, built once for all images of one size.

    At each place of a map there is an anchor of each of its sizes with the first ratio, then one of the first size with
    each further ratio.

    Args:
        sizes: for each map, heights of square anchors as shares of the image's height, above 0.
        ratios: width over height of an anchor whose area is that of the square, above 0.

    Raises:
        ValueError: for an empty list and for numbers that are not above 0, or infinite.

    Source:
        Dive into Deep Learning, 14.4 and 14.7; for images that are not square, ratios are of pixels.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> None:
        for name, members in (("sizes", sizes), ("ratios", [ratios])):
            if not members or not all(members) or not all(0 < value < math.inf for each in members for value in each):
                raise ValueError(f"{name} is {sizes if name == 'sizes' else ratios}, expected numbers above 0.")
        self.sizes = tuple(tuple(each) for each in sizes)
        self.ratios = tuple(ratios)
        self._built: dict[tuple[tuple[Size, ...], Size, torch.device], Tensor] = {}

    @property
    def per_place(self) -> tuple[int, ...]:
        """How many anchors each place of each map has."""
        return tuple(len(each) + len(self.ratios) - 1 for each in self.sizes)

    def boxes(self, map_sizes: Sequence[Size], image_size: Size, device: torch.device) -> Tensor:
        """All anchors of an image: (A, 4) float32, xyxy in pixels; they may reach beyond it."""
        key = (tuple(map_sizes), image_size, device)
        if key not in self._built:
            # what is made in inference mode could not serve in training later
            with torch.inference_mode(False):
                maps = zip(self.sizes, map_sizes, strict=True)
                boxes = [self._of_map(sizes, map_size, image_size) for sizes, map_size in maps]
                self._built[key] = torch.cat(boxes).float().to(device)
        return self._built[key]

    def _of_map(self, sizes: Sequence[float], map_size: Size, image_size: Size) -> Tensor:
        first, *further = self.ratios
        shapes = [(size, first) for size in sizes] + [(sizes[0], ratio) for ratio in further]
        extents = torch.tensor([(size * ratio**0.5, size / ratio**0.5) for size, ratio in shapes], dtype=torch.float64)
        extents *= image_size[0]  # (a, 2) width and height in pixels
        y, x = (
            (torch.arange(cells, dtype=torch.float64) + 0.5) * (side / cells)
            for cells, side in zip(map_size, image_size, strict=True)
        )
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        corners = (centres[:, :, None] - extents / 2, centres[:, :, None] + extents / 2)
        return torch.cat(corners, dim=-1).view(-1, 4)
