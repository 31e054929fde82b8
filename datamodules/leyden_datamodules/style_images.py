"""A folder of content pictures and one style picture, to train a network that paints in that style."""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from leyden.batches import StyleFacts, StylePairs
from leyden.data import BatchSource, DataModule, Split
from leyden.errors import DataError, UsageError
from leyden.folds import Fold
from leyden_datamodules._images import SUFFIXES, input_files, open_picture, picture_files, upright_size
from leyden_datamodules.style_pair import LARGEST_SIDE, SMALLEST_SIDE, Pictures, require_large_enough, target_size

logger = logging.getLogger("leyden")


class Contents(Dataset[StylePairs]):
    """Content pictures, decoded when a batch asks for them; a subclass says what of a picture is content.

    files: N paths. style: (3, h, w) uint8; with 0 pixels where there is none.
    """

    def __init__(self, files: Sequence[Path], style: Tensor) -> None:
        self.files = files
        self.style = style

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> StylePairs:
        contents = torch.stack([pil_to_tensor(self.content(index)) for index in indices])
        styles = self.style.expand(len(indices), *self.style.shape)
        return StylePairs(contents, styles, torch.zeros(len(indices), dtype=torch.int64))

    @abstractmethod
    def content(self, index: int) -> Image.Image:
        """What of picture `index` is content, in RGB. Raises DataError naming the file."""

    @property
    def inputs(self) -> list[str]:
        """The path of each picture."""
        return [str(file) for file in self.files]

    def picture(self, index: int) -> Image.Image:
        """The original of item `index`, upright, in RGB, at its own size."""
        return open_picture(self.files[index], "RGB")


class SquareCrops(Contents):
    """Pictures whose shorter side is resized to `image_size` pixels, cropped to a square in their middle."""

    def __init__(self, files: Sequence[Path], style: Tensor, image_size: int) -> None:
        super().__init__(files, style)
        self.image_size = image_size

    def content(self, index: int) -> Image.Image:
        """A crop of `image_size` pixels in both directions."""
        picture = open_picture(self.files[index], "RGB", at_least=2 * self.image_size)
        require_large_enough((picture.height, picture.width), self.files[index])
        side = min(picture.size)
        place = self.place(index)
        left, top = (place * (length - side) for length in picture.size)
        # only what the crop shows is resized
        window = (left, top, left + side, top + side)
        return picture.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR, box=window)

    def place(self, index: int) -> float:
        """Where along the longer side picture `index` is cropped, from 0 (its start) to 1."""
        return 0.5


class RandomSquareCrops(SquareCrops):
    """Pictures cropped at a place of their longer side that follows from seed, epoch and index alone."""

    def __init__(self, files: Sequence[Path], style: Tensor, image_size: int, seed: int) -> None:
        super().__init__(files, style, image_size)
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # seen by workers that live on

    def set_epoch(self, epoch: int) -> None:
        """Training begins this epoch."""
        self._epoch.fill_(epoch)

    def place(self, index: int) -> float:
        """Where along the longer side picture `index` is cropped, from 0 (its start) to 1."""
        return np.random.default_rng((self.seed % 2**64, int(self._epoch), index)).random()


class WholePictures(Contents):
    """Pictures at their own size, without a style; those of more than `max_pixels` are reduced to so many.

    Only pictures that then have one size can be in one batch.
    """

    def __init__(self, files: Sequence[Path], max_pixels: int) -> None:
        super().__init__(files, torch.empty((3, 0, 0), dtype=torch.uint8))
        self.max_pixels = max_pixels

    def content(self, index: int) -> Image.Image:
        """The picture, reduced where it is too large."""
        picture = self.picture(index)
        scale = math.sqrt(self.max_pixels / (picture.width * picture.height))
        if scale >= 1:
            return picture
        width, height = (max(1, int(scale * side)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BILINEAR)


class StyleImages(DataModule[StylePairs]):
    """Your own pictures, each to be painted in the style of one: what FastStyleTransfer is trained on.

    `root` holds the contents, of any size and kind, in sub-folders too; transparent parts are white, and of an animated
    picture the first frame counts. They are decoded in the workers, their shorter side is resized, and a square is cut
    out: at random along the longer side in training, in the middle else. Contents must have at least 16 pixels in both
    directions, the style before and after it is resized, and neither more than Pillow decodes (178 million in all).
    `predict` takes pictures of any size, one at a time, at their own size.

    Args:
        style: the style picture's file.
        image_size: side in pixels of the squares that are trained and tested on. From 16 to 4096, as style_size.
        style_size: pixels of the style picture's longer side, to which it is resized. Strokes are as large as this
            makes them, whatever the size of what is painted.
        val_fraction: share of the pictures cut for validation, by seed; at least one.
        test_fraction: share of the pictures cut for the test, likewise.
        max_pixels: `predict` reduces a picture of more pixels to so many, and gives it back so; the network needs
            about 1 GB for each million.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: without a root or a style, and for a value out of its range.
        DataError: for a folder or a picture that cannot be used, naming it.
    """

    def __init__(
        self,
        style: str | None = None,
        image_size: int = 256,
        style_size: int = 450,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        max_pixels: int = 4_000_000,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        for name, size in {"image_size": image_size, "style_size": style_size}.items():
            if not SMALLEST_SIDE <= size <= LARGEST_SIDE:
                raise UsageError(f"{name} is {size}; it must be from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels.")
        if val_fraction <= 0 or test_fraction <= 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; both must be above 0 and their sum "
                "below 1."
            )
        if max_pixels < 1:
            raise UsageError(f"max_pixels is {max_pixels}; it must be at least 1.")
        self.style = style
        self.image_size = image_size
        self.style_size = style_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.max_pixels = max_pixels

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """47 pictures of two colours and many sizes with a disc, as PNG and JPEG, and a style of stripes."""
        contents = root / "contents"
        contents.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        for number in range(47):
            width, height = random.integers(24, 49, 2).tolist()
            rows, columns = np.mgrid[:height, :width]
            disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(width, height) / 3) ** 2
            colours = random.integers(0, 256, (2, 3), dtype=np.uint8)
            Image.fromarray(colours[disc.astype(int)]).save(contents / f"{number:02d}.{'png' if number % 2 else 'jpg'}")
        rows, columns = np.mgrid[:40, :56]
        stripes = np.array([[200, 60, 30], [20, 40, 120]], dtype=np.uint8)[(rows + columns) // 5 % 2]
        Image.fromarray(stripes).save(root / "style.png")
        return {
            "root": str(contents),
            "style": str(root / "style.png"),
            "image_size": 32,
            "style_size": 32,
            "batch_size": 4,
        }

    def path(self) -> Path:
        """The folder given; there is no standard place for somebody's own pictures."""
        if self.root is None:
            raise UsageError("StyleImages needs the folder of your content pictures: --data.root ROOT.")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder. StyleImages reads the content pictures in it.")
        return root

    def describe(self) -> StyleFacts:
        """One pair: the folder's name and the style's, at the size of the squares.

        A network serves contents from any folder, and of any size: where it was trained for the same style, its own
        facts stay as they are.
        """
        content, style = self.path().resolve().name, self._style_file.name
        if isinstance(self.trained_facts, StyleFacts) and [pair[1] for pair in self.trained_facts.pairs] == [style]:
            return self.trained_facts
        return StyleFacts(((content, style, self.image_size, self.image_size),))

    def load(self, split: Split) -> BatchSource:
        """The split's share of the pictures, as squares."""
        return self._crops(self._parts[split], split)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """A part of all that may be trained on: cropped at random to train on it, in the middle to validate on it."""
        files = [*self._parts["train"], *self._parts["val"]]
        train, val = fold.cut(len(files), self.seed)
        return self._crops([files[index] for index in (train if split == "train" else val).tolist()], split)

    def load_inputs(self, inputs: Sequence[str]) -> WholePictures:
        """Picture files of any size, and folders of them, in the order given, each once, without a style."""
        files = input_files(inputs)
        large = [file for file in files if math.prod(upright_size(file)) > self.max_pixels]
        if large:
            logger.info(
                "%d of %d pictures have more than %d pixels and are made smaller (--data.max_pixels): %s%s",
                len(large),
                len(files),
                self.max_pixels,
                large[0],
                ", ..." if len(large) > 1 else "",
            )
        return WholePictures(files, self.max_pixels)

    def predict_dataloader(self) -> DataLoader[Any]:
        """One picture at a time: each has its own size."""
        chosen, self.batch_size = self.batch_size, 1
        try:
            return super().predict_dataloader()
        finally:
            self.batch_size = chosen

    def transform(self, batch: StylePairs, training: bool) -> StylePairs:
        """uint8 pictures as stored to float32 in [0, 1]."""
        style = batch.styles[:1].to(torch.float32).mul_(1 / 255)  # all are the same
        contents = batch.contents.to(torch.float32).mul_(1 / 255)
        return batch._replace(contents=contents, styles=style.expand(len(contents), -1, -1, -1))

    @property
    def _style_file(self) -> Path:
        if self.style is None:
            raise UsageError("StyleImages needs a style picture: --data.style FILE.")
        return Path(self.style).expanduser()

    @cached_property
    def _style_pixels(self) -> Tensor:
        """The style picture: (3, h, w) uint8."""
        file = self._style_file
        return Pictures([file], [target_size(file, self.style_size, "style_size")])[0]

    @cached_property
    def _parts(self) -> dict[Split, list[Path]]:
        """The files of each split, disjoint, in order."""
        files = picture_files(self.path())
        if len(files) < 3:
            raise DataError(
                f"{self.path()}: {len(files)} pictures, expected at least 3, for training, validation and test; looked "
                f"for {', '.join(sorted(SUFFIXES))}."
            )
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(self.seed))
        test = min(max(1, round(self.test_fraction * len(files))), len(files) - 2)
        val = min(max(1, round(self.val_fraction * len(files))), len(files) - 1 - test)
        cut: dict[Split, Tensor] = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
        return {split: [files[index] for index in chosen.sort().values.tolist()] for split, chosen in cut.items()}

    def _crops(self, files: Sequence[Path], split: Split) -> SquareCrops:
        if split == "train":
            return RandomSquareCrops(files, self._style_pixels, self.image_size, self._order_seed())
        return SquareCrops(files, self._style_pixels, self.image_size)
