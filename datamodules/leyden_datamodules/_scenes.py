"""What the data modules of whole scenes share: pictures of many sizes, held in memory, padded into one batch.

What lies in a scene (masks, boxes), and how training changes it, is the subclasses' affair.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from leyden.data import Batch, BatchSource, DataModule, Split
from leyden.errors import UsageError
from leyden.folds import Fold
from leyden_datamodules._images import Asked, Found, open_picture, read_all, upright_size

logger = logging.getLogger("leyden")
GIB = 2**30
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Size = tuple[int, int]  # height, width in pixels
Colour = tuple[float, float, float]


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
Listed = TypeVar("Listed")


class Scenes(Dataset[Any], Generic[AnyScene]):
    """Scenes in order, decoded when a batch asks for them unless they are held in memory.

    A subclass says which batch they make (`__getitems__`), and may have more planes of a picture's size than its three
    colours.
    """

    planes = 3

    def __init__(self, scenes: Sequence[AnyScene]) -> None:
        self.scenes = list(scenes)
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

    def size(self, scene: AnyScene) -> Size:
        """Height and width of what `decode` gives, without decoding. Raises DataError naming the file."""
        return upright_size(scene.image)

    def check(self, scene: AnyScene) -> None:
        """Raises DataError where `decode` would."""
        self.decode(scene)


class SceneData(DataModule[Batch]):
    """Base of the data modules of whole scenes.

    Args:
        flip: in training, mirror each picture with probability one half.
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
        flip: bool = True,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        cache: float = 2.0,
        on_error: Literal["raise", "skip"] = "raise",
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if min(std) <= 0:
            raise UsageError(f"std is {list(std)}; pixels are divided by it: each number must be above 0.")
        if cache < 0:
            raise UsageError(f"cache is {cache}; it must be 0 (off) or more GiB.")
        self.flip = flip
        self.mean = mean
        self.std = std
        self.cache = cache
        self.on_error = on_error
        self._held_bytes = 0
        self._left_out: dict[tuple[str, str], list[str]] = {}

    def setup(self, stage: str) -> None:
        """Load the splits of a stage and count the scenes that were left out."""
        super().setup(stage)
        if self._left_out:
            counts = ", ".join(f"{what} {len(reasons)} {things}" for (what, things), reasons in self._left_out.items())
            first = next(iter(self._left_out.values()))[0]
            rank_zero_warn(f"{type(self).__name__} {counts} that cannot be used. {first}")
            self._left_out = {}

    def left_out(self, reasons: Sequence[str], what: str = "scenes", done: str = "left out") -> None:
        """Count what cannot be used, for the warning of this stage: a sentence for each."""
        if reasons:
            self._left_out.setdefault((done, what), []).extend(reasons)

    @abstractmethod
    def listed(self, split: Split) -> Sequence[Any]:
        """What the scenes of a split are made from, as they are listed or cut; no picture is opened for it."""

    @abstractmethod
    def ready(self, listed: Sequence[Any], split: Split) -> BatchSource:
        """The scenes made from what was listed, checked, and decoded where they are held in memory."""

    def cut(self, listed: Sequence[Listed], count: int, split: Split) -> list[Listed]:
        """`count` of these, chosen by seed, for the split `val`, and the others for `train`; both in their order."""
        order = torch.randperm(len(listed), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[:count] if split == "val" else order[count:]
        return [listed[index] for index in chosen.sort().values.tolist()]

    def load(self, split: Split) -> BatchSource:
        """The scenes that are listed for the split, or cut for it."""
        return self.ready(self.listed(split), split)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """A part of all that may be trained on: augmented to train on it, whole to validate on it."""
        pool = [one for name in ("train", "val") for one in self.listed(name)]
        train, val = fold.cut(len(pool), self.seed)
        return self.ready([pool[index] for index in (train if split == "train" else val).tolist()], split)

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
        self.left_out(errors)
        return found

    def _hold(self, source: Scenes[AnyScene]) -> bool:
        """Decode a data set into memory, unless it is too large."""
        sized = self.usable(source.size, source.scenes)
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
