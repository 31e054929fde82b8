"""What the data modules of images share: decoding pictures, and, where each has a label, augmenting a batch of them."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from leyden.batches import ImageFacts, LabelledImages
from leyden.data import DataModule, InMemory, Part, Pool
from leyden.errors import DataError, UsageError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# beyond half of the pixels that it decodes Pillow warns; what is too large is an error here, and nothing else is said
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2017, "Random Erasing", section 5


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder and its sub-folders, by suffix, sorted; hidden files and folders are left out."""
    found = []
    for path, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(path, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES)


def open_picture(path: Path, mode: Literal["L", "RGB"], at_least: int | None = None) -> Image.Image:
    """A picture of any kind as 8-bit grey or RGB, upright as its EXIF data says, transparent parts on white.

    at_least: a JPEG may be decoded at a fraction of its size, both sides no shorter than this many pixels.
    Raises DataError naming the file.
    """
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return _eight_bits(image).convert(mode)
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them stumble over
        raise unreadable(path, error) from error


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of a picture as `open_picture` gives it. Raises DataError naming the file."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter, mirrored or not
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """What PIL raised about a picture, as an error that names the file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file.")
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{path}: is not a picture, or of no known format.")
    return DataError(f"{path}: cannot be read as a picture ({type(error).__name__}: {error}).")


def _is_picture(path: Path) -> bool:
    """Whether a file begins as a picture does; its pixels are not decoded. A missing file is reported elsewhere."""
    try:
        with Image.open(path):
            return True
    except FileNotFoundError:
        return True
    except Exception:  # PIL's decoders raise whatever a damaged file makes them stumble over
        return False


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # grey of 16 bits; converting would clip at 255
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError(f"pixels from {pixels.min()} to {pixels.max()}, expected 0 to 65535")
        return Image.fromarray((pixels >> 8).astype(np.uint8))
    return image


class Pictures(Dataset[LabelledImages]):
    """Picture files, decoded and resized when a batch asks for them.

    files: N paths. labels: (N,) int64. channels: 1 or 3. image_size: (height, width) of the images in a batch.
    """

    def __init__(self, files: Sequence[Path], labels: Tensor, channels: int, image_size: tuple[int, int]) -> None:
        self.files = files
        self.labels = labels
        self.channels = channels
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> LabelledImages:
        images = self.empty(len(indices))
        for image, index in zip(images, indices, strict=True):
            self.decode(index, image)
        return LabelledImages(images, self.labels[torch.as_tensor(indices)])

    def empty(self, count: int) -> Tensor:
        """Room for decoded images: (count, C, H, W) uint8."""
        return torch.empty((count, self.channels, *self.image_size), dtype=torch.uint8)

    def decode(self, index: int, image: Tensor) -> None:
        """Write file `index`, resized with antialiasing, into `image`: (C, H, W) uint8."""
        height, width = self.image_size
        # Twice the size leaves the resizing enough pixels to average.
        picture = open_picture(self.files[index], "L" if self.channels == 1 else "RGB", at_least=2 * max(height, width))
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        image.copy_(v2.functional.pil_to_tensor(resized))

    @property
    def inputs(self) -> list[str]:
        """The path of each item."""
        return [str(file) for file in self.files]

    def picture(self, index: int) -> Image.Image:
        """The original of item `index`, upright, in RGB, at its own size."""
        return open_picture(self.files[index], "RGB")


Asked = TypeVar("Asked")
Found = TypeVar("Found")


def read_all(
    read: Callable[[Asked], Found], asked: Sequence[Asked], skip: bool, none: str
) -> tuple[list[tuple[Asked, Found]], list[str]]:
    """Read each of these, in threads: what was found, and the errors of those that are left out where `skip`.

    Raises DataError: the first one where nothing is skipped; one that begins with `none` where nothing is left.
    """
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(partial(_result_or_error, read), asked))
    errors = [result for result in results if isinstance(result, DataError)]
    if errors and not skip:
        raise errors[0]
    if errors and len(errors) == len(asked):
        raise DataError(f"{none}. {errors[0]}")
    pairs = zip(asked, results, strict=True)
    return [(one, result) for one, result in pairs if not isinstance(result, DataError)], list(map(str, errors))


def _result_or_error(read: Callable[[Asked], Found], asked: Asked) -> Found | DataError:
    try:
        return read(asked)
    except DataError as error:
        return error


def crop_and_flip(images: Tensor, padding: int, tops: Tensor, lefts: Tensor, flipped: Tensor) -> Tensor:
    """Crop each image from itself padded with black, then mirror it where asked.

    images: (B, C, H, W). padding: pixels on each side. tops, lefts: (B,) int64, where the crop begins in the padded
    image, from 0 to 2 padding. flipped: (B,) bool. Returns (B, C, H, W) of the same dtype.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding))
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = lefts[:, None] + torch.where(flipped[:, None], columns.flip(0), columns)
    pixels = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]  # (B, H, W), places in a padded channel
    pixels = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, pixels).view_as(images)


def random_boxes(batch: int, height: int, width: int, device: torch.device) -> Tensor:
    """A box to erase in each image: (B, 4) int64, top, left, bottom, right; clipped to the image's size."""
    area = torch.empty(batch, device=device).uniform_(*ERASED_AREA).mul_(height * width)
    ratio = torch.empty(batch, device=device).uniform_(*map(math.log, ERASED_RATIO)).exp_()
    heights = (area * ratio).sqrt_().round_().clamp_(1, height)
    widths = (area / ratio).sqrt_().round_().clamp_(1, width)
    tops = (torch.rand(batch, device=device) * (height - heights + 1)).floor_()
    lefts = (torch.rand(batch, device=device) * (width - widths + 1)).floor_()
    return torch.stack((tops, lefts, tops + heights, lefts + widths), dim=1).long()


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set a box in each image to 0, in place.

    images: (B, C, H, W). boxes: (B, 4) int64, top, left, bottom, right in pixels; an empty box erases nothing.
    """
    rows = torch.arange(images.shape[-2], device=images.device)
    columns = torch.arange(images.shape[-1], device=images.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # (B, 1) each
    inside_rows = (rows >= top) & (rows < bottom)
    inside_columns = (columns >= left) & (columns < right)
    return images.masked_fill_((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 0)


class ImageData(DataModule[LabelledImages]):
    """Base of the data modules of labelled images.

    A subclass names the training set's `mean` and `std`, one for each channel, of pixels in [0, 1].

    Args:
        normalize: subtract the training set's mean and divide by its standard deviation; without it, pixels are in
            [0, 1].
        crop_padding: in training, crop each image at random from itself padded by this many black pixels.
        flip: in training, mirror each image with probability one half.
        erase: in training, probability that a random box of an image is set to 0 (random erasing).
        mixup: in training, alpha of mixup, which makes labels probabilities; 0 is off.
        cutmix: in training, alpha of CutMix, which makes labels probabilities; 0 is off. With mixup as well, each batch
            gets one of both.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        normalize: bool = False,
        crop_padding: int = 0,
        flip: bool = False,
        erase: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        for name, value in {"crop_padding": crop_padding, "mixup": mixup, "cutmix": cutmix}.items():
            if value < 0:
                raise UsageError(f"{name} is {value}; it must be 0 (off) or more.")
        if not 0 <= erase <= 1:
            raise UsageError(f"erase is {erase}; it is a probability, from 0 (off) to 1.")
        self.normalize = normalize
        self.crop_padding = crop_padding
        self.flip = flip
        self.erase = erase
        self.mixup = mixup
        self.cutmix = cutmix

    def transform(self, batch: LabelledImages, training: bool) -> LabelledImages:
        """uint8 images as stored to float32 images (B, C, *facts.image_size); labels as `LabelledImages` says."""
        images, labels = batch
        if training:
            images = self._shift(images)
        images = self._scale(images)
        if training and self.erase:
            images = self._erase(images)
        if training and self._mixing is not None:
            images, labels = self._mixing(images, labels)
        return LabelledImages(images, labels)

    def strata(self, pool: Any) -> Tensor:
        """The label of each picture: (N,) int64."""
        return _labels(pool)

    def load_inputs(self, inputs: Sequence[str]) -> Pictures:
        """Picture files, and folders of them, in the order given, each once, without labels."""
        files = input_files(inputs)
        facts = self._image_facts()
        return Pictures(files, torch.full((len(files),), -1), facts.channels, facts.image_size)

    def _image_facts(self) -> ImageFacts:
        return cast(ImageFacts, self.facts or self.describe())

    def _shift(self, images: Tensor) -> Tensor:
        if not (self.crop_padding or self.flip):
            return images
        batch, device = len(images), images.device
        tops, lefts = torch.randint(0, 2 * self.crop_padding + 1, (2, batch), device=device)
        flipped = torch.rand(batch, device=device) < (0.5 if self.flip else 0.0)
        return crop_and_flip(images, self.crop_padding, tops, lefts, flipped)

    def _scale(self, images: Tensor) -> Tensor:
        size = self._image_facts().image_size
        if images.shape[-2:] != size:  # before scaling: on a CPU, bytes are resized three times as fast as floats
            images = v2.functional.resize(images, list(size), antialias=True)
        images = images.to(torch.float32).mul_(1 / 255)
        return v2.functional.normalize(images, self.mean, self.std, inplace=True) if self.normalize else images

    def _erase(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        boxes = random_boxes(batch, height, width, images.device)
        boxes[torch.rand(batch, device=images.device) >= self.erase] = 0
        return erase(images, boxes)

    @cached_property
    def _mixing(self) -> v2.Transform | None:
        num_classes = len(self._image_facts().class_names)
        mixers: list[v2.Transform] = []
        if self.mixup:
            mixers.append(v2.MixUp(alpha=self.mixup, num_classes=num_classes))
        if self.cutmix:
            mixers.append(v2.CutMix(alpha=self.cutmix, num_classes=num_classes))
        return v2.RandomChoice(mixers) if mixers else None


def _labels(source: Any) -> Tensor:
    """The labels (N,) int64 of a data set, without decoding its pictures."""
    if isinstance(source, Part):
        return _labels(source.data)[source.chosen]
    if isinstance(source, Pool):
        return torch.cat((_labels(source.first), _labels(source.second)))
    labels: Tensor = source.batch.labels if isinstance(source, InMemory) else source.labels
    return labels


def input_files(inputs: Sequence[str]) -> list[Path]:
    """Picture files, and those in folders, in the order given, each once. Raises DataError for what is no picture."""
    files = list(dict.fromkeys(file for name in inputs for file in _files_of(name)))
    if not files:
        raise DataError("there is nothing to predict: name picture files, or folders that hold some.")
    if bad := [str(file) for file in files if not _is_picture(file)]:
        raise DataError(
            f"{len(bad)} of {len(files)} inputs are no pictures, or of no known format: {', '.join(bad[:5])}"
            f"{', ...' if len(bad) > 5 else ''}. Nothing was predicted; leave them out."
        )
    return files


def _files_of(name: str) -> Iterable[Path]:
    path = Path(name).expanduser()
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{name}: no such file or folder.")
        return [path]
    files = picture_files(path)
    if not files:
        raise DataError(f"{name}: no pictures in this folder; looked for {', '.join(sorted(SUFFIXES))}.")
    return files
