"""A user's own pictures, one folder for each class."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageDraw
from torch import Tensor

from leyden.batches import ImageFacts, LabelledImages
from leyden.data import BatchSource, InMemory, Split
from leyden.errors import DataError, UsageError
from leyden_datamodules._images import SUFFIXES, ImageData, Pictures, picture_files, read_all

LAYOUT = "ImageFolder reads ROOT/<class>/*.jpg, or ROOT/train/<class>/*.jpg (and ROOT/val, ROOT/test alike)"


class ImageFolder(ImageData):
    """Your own pictures for classification: one folder for each class, named after it.

    `root` holds the class folders. Or it holds `train`, and perhaps `val` and `test`, which hold them; a missing `val`
    is then cut from `train`, a missing `test` is not. Pictures may be of any size and kind, in sub-folders too; they
    are decoded in the workers and resized to a square, whatever their shape.

    Args:
        image_size: side in pixels of the square that each picture is resized to.
        grey: one channel instead of RGB.
        val_fraction: share of the pictures cut for validation, by seed, alike from each class.
        test_fraction: share of the pictures cut for the test, likewise.
        on_error: what to do about a picture that cannot be read. `raise` stops when it is read; `skip` decodes all
            pictures of a stage once when it starts, leaves the bad ones out and counts them in one warning.
        cache: decode all pictures of a stage once, when it starts, and hold them in memory as bytes
            (3 image_size^2 bytes for each RGB picture, in each process).
        **image_data: the arguments of every data module of labelled images.

    Raises:
        UsageError: without a root, and for a value out of its range.
        DataError: for a folder or a picture that cannot be used, naming it.
    """

    def __init__(
        self,
        image_size: int = 224,
        grey: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        on_error: Literal["raise", "skip"] = "raise",
        cache: bool = False,
        **image_data: Any,
    ) -> None:
        super().__init__(**image_data)
        if image_size < 1:
            raise UsageError(f"image_size is {image_size}; it must be at least 1 pixel.")
        if val_fraction <= 0 or test_fraction <= 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; both must be above 0 and their sum "
                "below 1."
            )
        self.image_size = image_size
        self.grey = grey
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.on_error = on_error
        self.cache = cache
        # ImageNet's, which pretrained networks expect; for grey their mean.
        self.mean, self.std = ((0.449,), (0.226,)) if grey else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self._left_out: list[str] = []

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """Three classes of 25 pictures of many sizes: a disc, a frame or stripes in noise, as PNG and JPEG."""
        generator = torch.Generator().manual_seed(0)
        for name in ("disc", "frame", "stripes"):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(25):
                width, height = torch.randint(24, 49, (2,), generator=generator).tolist()
                noise = torch.randint(0, 100, (height, width, 3), generator=generator, dtype=torch.uint8)
                picture = Image.fromarray(noise.numpy())
                _draw(name, picture)
                picture.save(root / name / f"{number:02d}.{'png' if number % 2 else 'jpg'}")
        return {"root": str(root), "image_size": 24, "batch_size": 8}

    def path(self) -> Path:
        """The folder given; there is no standard place for somebody's own pictures."""
        if self.root is None:
            raise UsageError(f"ImageFolder needs the folder of your pictures: --data.root ROOT. {LAYOUT}.")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder. {LAYOUT}.")
        return root

    def describe(self) -> ImageFacts:
        """Channels and size as asked for; the class names are the folders' names, sorted."""
        return ImageFacts(
            channels=1 if self.grey else 3,
            image_size=(self.image_size, self.image_size),
            class_names=tuple(folder.name for folder in self._class_folders),
        )

    def setup(self, stage: str) -> None:
        """Load the splits of a stage and count the pictures that were left out."""
        super().setup(stage)
        if self._left_out:
            rank_zero_warn(f"ImageFolder left out {len(self._left_out)} unreadable pictures. {self._left_out[0]}")
            self._left_out = []

    def load(self, split: Split) -> BatchSource:
        """The split's pictures: those in its folder, or those cut for it."""
        files, labels = self._listing(split)
        facts = self.describe()
        pictures = Pictures(files, labels, facts.channels, facts.image_size)
        if self.cache:
            return self._decoded(pictures)
        return self._readable(pictures) if self.on_error == "skip" else pictures

    @cached_property
    def _class_folders(self) -> list[Path]:
        """One for each class, sorted by name."""
        root = self.path()
        folders = _sub_folders(root / "train" if _has_train_folder(root) else root)
        if len(folders) < 2:
            found = f"only one class folder, {folders[0].name}" if folders else "no class folders"
            raise DataError(f"{root}: {found}. {LAYOUT}.")
        return folders

    def _listing(self, split: Split) -> tuple[list[Path], Tensor]:
        """The files of a split, and their labels: (n,) int64."""
        root = self.path()
        if not _has_train_folder(root):
            return self._cut({"val": self.val_fraction, "test": self.test_fraction}, split)
        if split != "train" and (root / split).is_dir():
            return self._listing_in(root / split)
        if split == "test":
            raise DataError(f"{root / 'test'}: no such folder. Put the test pictures there, as in train.")
        return self._cut({} if (root / "val").is_dir() else {"val": self.val_fraction}, split)

    def _listing_in(self, folder: Path) -> tuple[list[Path], Tensor]:
        """All pictures in the class folders of `val` or `test`, where a class may be missing but not be new."""
        class_names = [class_folder.name for class_folder in self._class_folders]
        files: list[Path] = []
        labels: list[int] = []
        for class_folder in _sub_folders(folder):
            if class_folder.name not in class_names:
                raise DataError(f"{class_folder}: a class that train lacks; train has {', '.join(class_names)}.")
            found = picture_files(class_folder)
            files += found
            labels += [class_names.index(class_folder.name)] * len(found)
        if not files:
            raise DataError(f"{folder}: no pictures in class folders. {LAYOUT}.")
        return files, torch.tensor(labels)

    def _cut(self, fractions: dict[str, float], split: Split) -> tuple[list[Path], Tensor]:
        """What is `split`'s of the class folders' pictures, when these shares are cut from them."""
        files, labels = self._all
        parts = stratified_parts(labels, fractions, self.seed)
        chosen = parts[split]
        if not len(chosen):
            raise DataError(
                f"{self.path()}: {len(files)} pictures are too few to cut {fractions[split]:g} of them for {split}."
            )
        return [files[index] for index in chosen.tolist()], labels[chosen]

    @cached_property
    def _all(self) -> tuple[list[Path], Tensor]:
        """Every picture in the class folders, and its label: (N,) int64."""
        files: list[Path] = []
        counts: list[int] = []
        for folder in self._class_folders:
            found = picture_files(folder)
            if not found:
                raise DataError(
                    f"{folder}: no pictures in this class folder; looked for {', '.join(sorted(SUFFIXES))}."
                )
            files += found
            counts.append(len(found))
        return files, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def _decoded(self, pictures: Pictures) -> InMemory:
        """The readable pictures, decoded."""
        images = pictures.empty(len(pictures))
        readable = self._try_all(lambda index: pictures.decode(index, images[index]), len(pictures))
        if len(readable) < len(pictures):
            images = images[readable]
        return InMemory(LabelledImages(images, pictures.labels[readable]))

    def _readable(self, pictures: Pictures) -> Pictures:
        """The readable pictures, undecoded."""
        readable = self._try_all(lambda index: pictures.__getitems__([index]), len(pictures))
        files = [pictures.files[index] for index in readable]
        return Pictures(files, pictures.labels[readable], pictures.channels, pictures.image_size)

    def _try_all(self, read: Callable[[int], object], count: int) -> list[int]:
        """Read the pictures 0 to `count` - 1, in threads; returns the indices of those that can be read."""
        found, errors = read_all(read, range(count), self.on_error == "skip", f"none of {count} pictures can be read")
        self._left_out += errors
        return [index for index, _ in found]


def stratified_parts(labels: Tensor, fractions: dict[str, float], seed: int) -> dict[str, Tensor]:
    """Cut shares of the items at random, alike from each class; what is left is `train` and has every class.

    labels: (N,) int64. Returns for `train` and each name in `fractions` the sorted indices: (n,) int64, disjoint, with
    n = round(fraction N) wherever every class keeps an item.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    first_of_class = torch.cat((torch.tensor([True]), labels[by_class].diff() != 0))
    parts = {}
    free = by_class[~first_of_class]
    for name, fraction in fractions.items():
        count = min(round(fraction * len(labels)), len(free))
        # Evenly spaced through the classes, which lie one behind the other.
        taken = torch.zeros(len(free), dtype=torch.bool)
        taken[((torch.arange(count, dtype=torch.float64) + 0.5) * len(free) / max(1, count)).long()] = True
        parts[name], free = free[taken].sort().values, free[~taken]
    parts["train"] = torch.cat((by_class[first_of_class], free)).sort().values
    return parts


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _has_train_folder(root: Path) -> bool:
    """Whether root/train holds class folders; a class may itself be called `train`."""
    return (root / "train").is_dir() and bool(_sub_folders(root / "train"))


def _draw(name: str, picture: Image.Image) -> None:
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    if name == "disc":
        draw.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill="orange")
    elif name == "frame":
        draw.rectangle((2, 2, width - 3, height - 3), outline="cyan", width=4)
    else:
        for left in range(0, width, 8):
            draw.rectangle((left, 0, left + 3, height), fill="white")
