"""What the data modules of random crops share: crops of one size, mirrored, resized and recoloured.

What lies in a scene is the subclasses' affair; `Window` tells them where a crop comes from.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from leyden.data import Batch
from leyden.errors import UsageError
from leyden_datamodules._scenes import Colour, SceneData, Size


class Span(NamedTuple):
    """One side of a window: `length` pixels of a picture from `start` on become `out` pixels of a crop from `place`."""

    start: int
    length: int
    place: int
    out: int


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture, and the rectangle of the crop that it fills, mirrored or not."""

    rows: Span
    columns: Span
    flipped: bool

    def cut(self, pixels: Tensor, interpolation: v2.InterpolationMode = v2.InterpolationMode.BILINEAR) -> Tensor:
        """What the crop shows of a picture: (C, H, W) uint8 to (C, rows.out, columns.out) uint8."""
        rows, columns = self.rows, self.columns
        part: Tensor = pixels[:, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
        part = v2.functional.resize(part, [rows.out, columns.out], interpolation=interpolation, antialias=True)
        return part.flip(-1) if self.flipped else part

    def paste(self, part: Tensor, crop: Tensor) -> None:
        """Write what was cut, (C, rows.out, columns.out), to its place in a crop (C, h, w)."""
        rows, columns = self.rows, self.columns
        crop[:, rows.place : rows.place + rows.out, columns.place : columns.place + columns.out] = part


@dataclass(frozen=True)
class Augmentation:
    """How training crops, mirrors and recolours pictures.

    crop_size: of every crop. scale: the range of the factor by which a picture is resized; its logarithm is uniform.
    flip: half of the pictures are mirrored. colour: brightness, contrast and saturation change by factors from
    1 - colour to 1 + colour. blank: the colour (red, green, blue) from 0 to 1 where a picture is smaller than the crop.
    seed: all randomness follows from it, the epoch and the picture's number.
    """

    crop_size: Size
    scale: tuple[float, float]
    flip: bool
    colour: float
    blank: Colour
    seed: int

    def random(self, epoch: int, index: int) -> np.random.Generator:
        """The randomness of one picture in one epoch."""
        return np.random.default_rng((self.seed % 2**64, epoch, index))

    def window(self, size: Size, random: np.random.Generator) -> Window:
        """Where to crop a picture of this size. No more is cut out than the crop shows, so no more must be resized."""
        low, high = self.scale
        scale = low * (high / low) ** random.random()
        rows, columns = (
            random_span(side, crop, scale, random) for side, crop in zip(size, self.crop_size, strict=True)
        )
        return Window(rows, columns, flipped=self.flip and random.random() < 0.5)

    def recolour(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Change brightness, contrast and saturation of an image (3, H, W) uint8."""
        if not self.colour:
            return image
        brightness, contrast, saturation = random.uniform(1 - self.colour, 1 + self.colour, size=3)
        values = v2.functional.to_dtype(image, torch.float32, scale=True)  # torchvision rounds bytes after each step
        values = v2.functional.adjust_brightness(values, brightness)
        values = v2.functional.adjust_contrast(values, contrast)
        values = v2.functional.adjust_saturation(values, saturation)
        recoloured: Tensor = v2.functional.to_dtype(values, torch.uint8, scale=True)
        return recoloured

    def blanks(self, count: int) -> Tensor:
        """Crops without a picture yet: (count, 3, h, w) uint8."""
        colour = torch.tensor([round(255 * value) for value in self.blank], dtype=torch.uint8)
        return colour[:, None, None].expand(count, 3, *self.crop_size).contiguous()


def random_span(side: int, crop: int, scale: float, random: np.random.Generator) -> Span:
    """One side of a random crop of `crop` pixels from a picture's side, resized by `scale`.

    Where the resized side is shorter than the crop, all of it lies at a random place in the crop.
    """
    length = max(1, round(crop / scale))
    if length <= side:
        return Span(int(random.integers(side - length + 1)), length, 0, crop)
    out = min(crop, max(1, round(side * scale)))
    return Span(0, side, int(random.integers(crop - out + 1)), out)


class CropData(SceneData[Batch]):
    """Base of the data modules that train on random crops of scenes, and evaluate whole ones.

    Args:
        crop_size: [height, width] in pixels of the random crops that are trained on. A picture that is smaller lies at
            a random place in its crop.
        scale_jitter: in training, resize each picture by a random factor from this range; halving is as likely as
            doubling. [1, 1] is off.
        colour_jitter: in training, change brightness, contrast and saturation of each picture by up to this share;
            0 is off.
        **scene_data: the arguments of every data module of whole scenes.

    Raises:
        UsageError: for a value out of its range.
    """

    def __init__(
        self,
        crop_size: tuple[int, int] = (320, 480),
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        colour_jitter: float = 0.0,
        **scene_data: Any,
    ) -> None:
        super().__init__(**scene_data)
        if min(crop_size) < 1:
            raise UsageError(f"crop_size is {list(crop_size)}; height and width must be at least 1 pixel.")
        if not 0 < scale_jitter[0] <= scale_jitter[1]:
            raise UsageError(f"scale_jitter is {list(scale_jitter)}; it must be [smallest, largest], both above 0.")
        if not 0 <= colour_jitter <= 1:
            raise UsageError(f"colour_jitter is {colour_jitter}; it must be from 0 (off) to 1.")
        self.crop_size = crop_size
        self.scale_jitter = scale_jitter
        self.colour_jitter = colour_jitter

    def augmentation(self) -> Augmentation:
        """What training does with each scene; its randomness follows --seed_everything, as the order does."""
        return Augmentation(
            self.crop_size, self.scale_jitter, self.flip, self.colour_jitter, self.mean, self._order_seed()
        )
