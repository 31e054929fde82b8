"""What the data modules of whole scenes share: pictures of many sizes, cropped at random or padded into one batch.

What lies in a scene (masks, boxes) is the subclasses' affair; `Window` tells them where a crop comes from.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from leyden.data import Batch, DataModule
from leyden.errors import UsageError
from leyden_datamodules._images import Asked, Found, open_picture, read_all, upright_size

logger = logging.getLogger("leyden")
GIB = 2**30
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Size = tuple[int, int]  # height, width in pixels
Colour = tuple[float, float, float]


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


def pad(parts: Sequence[Tensor], value: int) -> Tensor:
    """Tensors (C, H, W) of many sizes as one (B, C, max H, max W), each in the upper left corner, `value` elsewhere."""
    height, width = (max(part.shape[side] for part in parts) for side in (1, 2))
    batch = parts[0].new_full((len(parts), len(parts[0]), height, width), value)
    for padded, part in zip(batch, parts, strict=True):
        padded[:, : part.shape[1], : part.shape[2]] = part
    return batch


def clear_padding(images: Tensor, sizes: Tensor) -> Tensor:
    """Set all beyond each image's own size to 0, in place. images: (B, C, H, W). sizes: (B, 2) int64 height, width."""
    rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]
    return images.mul_((rows[:, :, None] & columns[:, None, :])[:, None])


class Held:
    """Decoded pictures of many sizes in one piece of memory, which workers share: uint8, (planes, H, W) each."""

    def __init__(self, planes: int, sizes: Sequence[Size]) -> None:
        self.shapes = [(planes, *size) for size in sizes]
        self.ends = np.cumsum([math.prod(shape) for shape in self.shapes]).tolist()
        self.memory = torch.empty(self.ends[-1], dtype=torch.uint8)

    def __getitem__(self, index: int) -> Tensor:
        shape = self.shapes[index]
        return self.memory[self.ends[index] - math.prod(shape) : self.ends[index]].view(shape)

    def select(self, indices: Sequence[int]) -> None:
        """Keep these pictures only, in this order."""
        self.shapes, self.ends = [self.shapes[index] for index in indices], [self.ends[index] for index in indices]


@dataclass(frozen=True)
class Scene:
    """A picture's file; subclasses add the files of what is known about it."""

    image: Path


AnyScene = TypeVar("AnyScene", bound=Scene)


class Scenes(Dataset[Any], Generic[AnyScene]):
    """Scenes in order, decoded when a batch asks for them unless they are held in memory.

    A subclass says which batch they make (`__getitems__`), and may have more planes of a picture's size than its three
    colours.

    augmentation: what training does with each scene; None hands them out whole.
    """

    planes = 3

    def __init__(self, scenes: Sequence[AnyScene], augmentation: Augmentation | None = None) -> None:
        self.scenes = list(scenes)
        self.augmentation = augmentation
        self.held: Held | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # seen by workers that live on

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The batch of these scenes, in this order."""

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def epoch(self) -> int:
        """The epoch that training is in."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Training begins this epoch."""
        self._epoch.fill_(epoch)

    @property
    def inputs(self) -> list[str]:
        """The path of each picture."""
        return [str(scene.image) for scene in self.scenes]

    def picture(self, index: int) -> Image.Image:
        """The original of item `index`, upright, in RGB, at its own size."""
        return open_picture(self.scenes[index].image, "RGB")

    def pixels(self, index: int) -> Tensor:
        """Item `index`, decoded: (planes, H, W) uint8. It may be what is held: not to be changed in place."""
        return self.decode(self.scenes[index]) if self.held is None else self.held[index]

    def decode(self, scene: AnyScene) -> Tensor:
        """A scene from its files: (planes, H, W) uint8, red, green and blue first. Raises DataError naming the file."""
        image: Tensor = v2.functional.pil_to_tensor(open_picture(scene.image, "RGB"))
        return image

    def check(self, scene: AnyScene) -> None:
        """Raises DataError where `decode` would."""
        self.decode(scene)


class SceneData(DataModule[Batch]):
    """Base of the data modules of whole scenes.

    Args:
        crop_size: [height, width] in pixels of the random crops that are trained on. A picture that is smaller lies at
            a random place in its crop.
        flip: in training, mirror each picture with probability one half.
        scale_jitter: in training, resize each picture by a random factor from this range; halving is as likely as
            doubling. [1, 1] is off.
        colour_jitter: in training, change brightness, contrast and saturation of each picture by up to this share;
            0 is off.
        mean: of red, green and blue in [0, 1], subtracted from each pixel; ImageNet's by default.
        std: of red, green and blue, by which each pixel is then divided; ImageNet's by default.
        cache: GiB of decoded pictures that each process may hold in memory. A split that fits into what is left is
            decoded once, when it is loaded; others are decoded in the workers, in each epoch. 0 is off.
        on_error: what to do about a scene whose files are missing or cannot be used. `raise` stops when it is found;
            `skip` decodes all scenes of a stage once when it starts, leaves the bad ones out and counts them in one
            warning.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range.
    """

    def __init__(
        self,
        crop_size: tuple[int, int] = (320, 480),
        flip: bool = True,
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        colour_jitter: float = 0.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        cache: float = 2.0,
        on_error: Literal["raise", "skip"] = "raise",
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if min(crop_size) < 1:
            raise UsageError(f"crop_size is {list(crop_size)}; height and width must be at least 1 pixel.")
        if not 0 < scale_jitter[0] <= scale_jitter[1]:
            raise UsageError(f"scale_jitter is {list(scale_jitter)}; it must be [smallest, largest], both above 0.")
        if not 0 <= colour_jitter <= 1:
            raise UsageError(f"colour_jitter is {colour_jitter}; it must be from 0 (off) to 1.")
        if min(std) <= 0:
            raise UsageError(f"std is {list(std)}; pixels are divided by it: each number must be above 0.")
        if cache < 0:
            raise UsageError(f"cache is {cache}; it must be 0 (off) or more GiB.")
        self.crop_size = crop_size
        self.flip = flip
        self.scale_jitter = scale_jitter
        self.colour_jitter = colour_jitter
        self.mean = mean
        self.std = std
        self.cache = cache
        self.on_error = on_error
        self._held_bytes = 0
        self._left_out: list[str] = []

    def setup(self, stage: str) -> None:
        """Load the splits of a stage and count the scenes that were left out."""
        super().setup(stage)
        if self._left_out:
            count, name = len(self._left_out), type(self).__name__
            rank_zero_warn(f"{name} left out {count} scenes that cannot be used. {self._left_out[0]}")
            self._left_out = []

    def augmentation(self) -> Augmentation:
        """What training does with each scene; its randomness follows --seed_everything, as the order does."""
        return Augmentation(
            self.crop_size, self.scale_jitter, self.flip, self.colour_jitter, self.mean, self._order_seed()
        )

    def normalized(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to float32, (x / 255 - mean) / std."""
        mean, std = ([255 * value for value in values] for values in (self.mean, self.std))
        normalized: Tensor = v2.functional.normalize(images.to(torch.float32), mean, std, inplace=True)
        return normalized

    def prepare(self, source: Scenes[AnyScene]) -> None:
        """Hold a data set in memory where it fits; leave out its bad scenes where these are to be skipped."""
        if not (self.cache and self._hold(source)) and self.on_error == "skip":
            source.scenes = [scene for scene, _ in self.usable(source.check, source.scenes)]

    def usable(self, read: Callable[[Asked], Found], asked: Sequence[Asked]) -> list[tuple[Asked, Found]]:
        """Read each of these, in threads. Raises DataError where one cannot be read, or leaves it out: `on_error`."""
        found, errors = read_all(read, asked, self.on_error == "skip", f"none of {len(asked)} scenes can be used")
        self._left_out += errors
        return found

    def _hold(self, source: Scenes[AnyScene]) -> bool:
        """Decode a data set into memory, unless it is too large."""
        sized = self.usable(lambda scene: upright_size(scene.image), source.scenes)
        source.scenes = [scene for scene, _ in sized]
        needed = source.planes * sum(math.prod(size) for _, size in sized)
        if self._held_bytes + needed > self.cache * GIB:
            self._say_too_large(len(sized), needed)
            return False
        held = Held(source.planes, [size for _, size in sized])

        def decode(index: int) -> None:
            held[index].copy_(source.decode(source.scenes[index]))

        indices = [index for index, _ in self.usable(decode, range(len(sized)))]
        held.select(indices)
        source.scenes, source.held = [source.scenes[index] for index in indices], held
        self._held_bytes += needed
        return True

    def _say_too_large(self, count: int, needed: int) -> None:
        left = self.cache - self._held_bytes / GIB
        advice = "" if self.num_workers else " --data.num_workers 2 does so beside the training."
        logger.info(
            "%d scenes take %.2g GiB when decoded, %.2g of --data.cache %g are left: they are decoded in each epoch.%s",
            *(count, needed / GIB, left, self.cache, advice),
        )
