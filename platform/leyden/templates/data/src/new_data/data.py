"""The data: pictures, and a table that gives each its class."""

import csv
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from leyden.batches import ImageFacts, LabelledImages
from leyden.data import DataModule, InMemory, Part, Split
from leyden.errors import DataError, UsageError
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from new_data import toy

TABLE = "labels.csv"
SUFFIXES = {".jpeg", ".jpg", ".png"}


class NewData(DataModule[LabelledImages]):
    """Labelled pictures: ROOT/labels.csv, with the columns file and label, beside the pictures that it names.

    Pictures become RGB squares of one size, and are held in memory as bytes. Without a root, toy pictures are made in
    the standard folder.

    Args:
        image_size: side in pixels of the square that each picture is resized to.
        val_fraction: share of the pictures cut for validation, by seed.
        test_fraction: share of the pictures cut for the test, by seed.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value that is out of range.
        DataError: for a table or a picture that cannot be used, naming it.
    """

    folder = "new_data"
    facts: ImageFacts

    def __init__(
        self,
        image_size: int = 32,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if image_size < 1:
            raise UsageError(f"image_size is {image_size}; it must be at least 1 pixel.")
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; both must be above 0, their sum "
                "below 1."
            )
        self.image_size = image_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """100 toy pictures of each of three kinds."""
        toy.write_table(root, count=100)
        return {"root": str(root), "batch_size": 16}

    def fetch(self) -> None:
        """Make the toy pictures where nothing else is asked for; a data set would be downloaded here."""
        folder = self.path()
        if self.root is not None or folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new_data-") as unfinished:
            self.fabricate(Path(unfinished, "all"))
            Path(unfinished, "all").rename(folder)  # whole or not at all

    def describe(self) -> ImageFacts:
        """RGB, the size asked for, and the labels of the table, sorted."""
        names = {label for _, label in self._table}
        return ImageFacts(channels=3, image_size=(self.image_size, self.image_size), class_names=tuple(sorted(names)))

    def load(self, split: Split) -> Part:
        """The pictures that the seed has cut for this split."""
        count = len(self._table)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        val_end = round(self.val_fraction * count)
        test_end = val_end + round(self.test_fraction * count)
        parts = {"val": order[:val_end], "test": order[val_end:test_end], "train": order[test_end:]}
        if not all(map(len, parts.values())):
            raise DataError(f"{self.path() / TABLE}: {count} pictures are too few to cut into three splits.")
        return Part(self._pictures, parts[split])

    def transform(self, batch: LabelledImages, training: bool) -> LabelledImages:
        """Images to float32 in [0, 1]. In training they would be augmented here."""
        return batch._replace(images=batch.images.to(torch.float32) / 255)

    def load_inputs(self, inputs: Sequence[str]) -> "Pictures":
        """Picture files, and those in folders, in the order given, without labels."""
        paths = list(dict.fromkeys(path for name in inputs for path in _pictures_at(Path(name))))
        if not paths:
            raise DataError(f"{', '.join(inputs)}: no pictures; looked for {', '.join(sorted(SUFFIXES))}.")
        return Pictures(paths, torch.full((len(paths),), -1), self.facts.image_size)

    def strata(self, pool: Part) -> Tensor:
        """The label of each picture, so that cross-validation gives each fold its share of every class."""
        labels: Tensor = pool.data.batch.labels
        return labels[pool.chosen]

    @cached_property
    def _table(self) -> list[tuple[Path, str]]:
        """Picture and label of each row. Raises DataError naming file and line."""
        path = self.path() / TABLE
        try:
            lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}.") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: is no table of UTF-8 text: {error}.") from error
        if len(lines) < 2 or lines[0] != ["file", "label"]:
            raise DataError(f"{path}: expected a line `file,label`, and below it a line for each picture.")
        rows = []
        for number, line in enumerate(lines[1:], start=2):
            if len(line) != 2 or not all(line):
                raise DataError(f"{path}, line {number}: found {','.join(line)!r}, expected a file and its label.")
            picture = self.path() / line[0]
            if not picture.is_file():
                raise DataError(f"{path}, line {number}: there is no {picture}.")
            rows.append((picture, line[1]))
        return rows

    @cached_property
    def _pictures(self) -> "Pictures":
        """All pictures, with their labels."""
        names = self.describe().class_names
        labels = torch.tensor([names.index(label) for _, label in self._table])
        return Pictures([path for path, _ in self._table], labels, (self.image_size, self.image_size))


class Pictures(InMemory):
    """Picture files, decoded and resized, in memory as uint8.

    paths: N files. labels: (N,) int64. size: (height, width) in pixels. Raises DataError for one that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, size: tuple[int, int]) -> None:
        self.inputs = [str(path) for path in paths]  # what `predict` calls them
        images = torch.stack([pil_to_tensor(_open(path).resize(size[::-1])) for path in paths])
        super().__init__(LabelledImages(images, labels))

    def picture(self, index: int) -> Image.Image:
        """The original of picture `index`, at its own size."""
        return _open(Path(self.inputs[index]))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except Exception as error:  # a decoder raises whatever a damaged file makes it stumble over
        raise DataError(f"{path}: cannot be read as a picture: {error}.") from error


def _pictures_at(path: Path) -> list[Path]:
    """A file itself; of a folder the pictures in it and its sub-folders, sorted."""
    return sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
