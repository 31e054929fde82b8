"""Bananas: reading, verifying and fetching the book's data set of detection."""

import csv
import io
import math
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn

from leyden.data import Split
from leyden.download import Attempt, Download, NoSourceError, fetch, unpack_folder
from leyden.errors import DataError, UsageError
from leyden.folders import write_csv
from leyden_datamodules._boxes import BoxData, BoxedScene, Things, named_box, require_image
from leyden_datamodules._images import picture_files, upright_size
from leyden_datamodules._shapes import shapes_picture
from leyden_datamodules._text import read_text

ARCHIVE = Download(
    "banana-detection.zip",
    ("http://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip",),
    "sha1:5de26c8fce5ccdea9f91267273464dc968d20d72",
)
TRAIN, TEST = "bananas_train", "bananas_val"
COLUMNS = ("img_name", "label", "xmin", "ymin", "xmax", "ymax")
CLASSES = ("banana",)


class Row(NamedTuple):
    """A line of label.csv: where it is, the class index, and left, top, right, bottom in pixels."""

    where: str
    label: int
    corners: tuple[float, ...]


class Labelled(NamedTuple):
    """A picture with its rows."""

    image: Path
    rows: list[Row]


class BananaDetection(BoxData):
    """Bananas pasted on photographs, 1,000 to train on and 100 to test (Dive into Deep Learning, 14.6).

    The folder holds bananas_train and bananas_val, each with the folder `images` and the table label.csv, whose columns
    are img_name, label, xmin, ymin, xmax, ymax; label is a class index, the rest pixels, a row for each box. Data of
    your own in this layout may have several boxes in a picture and several classes. bananas_val is the test split;
    validation is cut from bananas_train.

    Where the standard folder banana-detection lacks them, they are downloaded (139 MB); the archive is kept.

    Args:
        val_size: number of pictures cut from bananas_train, by seed, to validate on.
        **box_data: the arguments of every data module of boxed things.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that is missing or cannot be used, naming it and the line.
    """

    folder = "banana-detection"

    def __init__(self, val_size: int = 100, **box_data: Any) -> None:
        super().__init__(**box_data)
        if val_size < 1:
            raise UsageError(f"val_size is {val_size}; it must be at least 1.")
        self.val_size = val_size

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """32 pictures of 64 x 64 pixels with a yellow disc on a dark ground: 20 train, 7 val, 5 test."""
        for number, (part, count) in enumerate({TRAIN: 27, TEST: 5}.items()):
            write_part(root / part, count, torch.Generator().manual_seed(number), 64, 64)
        return {"root": str(root), "image_size": [64, 64], "val_size": 7, "batch_size": 4}

    @property
    def class_names(self) -> tuple[str, ...]:
        """`banana`, or the given ones."""
        return CLASSES if self.classes is None else tuple(self.classes)

    def fetch(self) -> None:
        """Into a folder called banana-detection, from the book's server. Raises NoSourceError where that fails."""
        root = self.path()
        missing = [part for part in (TEST, TRAIN) if not (root / part).is_dir()]
        if not missing or root.name != self.folder:
            return
        archive = fetch(ARCHIVE, root)
        unpack_folder([archive], self.folder, root, missing)

    def listed(self, split: Split) -> list[Labelled]:
        """The pictures of a split with their rows."""
        if split == "test":
            return self._read(TEST)
        pictures = self._for_training
        if self.val_size >= len(pictures):
            raise UsageError(
                f"val_size is {self.val_size}, but {self.path() / TRAIN} has {len(pictures)} pictures: none is left to "
                "train on."
            )
        return self.cut(pictures, self.val_size, split)

    @cached_property
    def _for_training(self) -> list[Labelled]:
        return self._read(TRAIN)

    def scene(self, listed: Labelled) -> BoxedScene:
        """A picture with its boxes."""
        image, rows = listed
        require_image(image, rows[0].where)
        size = upright_size(image)
        boxes = torch.tensor([row.corners for row in rows])
        labels = torch.tensor([row.label for row in rows])
        places = tuple(
            f"{row.where}: {named_box(number, self.class_names[row.label], row.corners)}"
            for number, row in enumerate(rows, start=1)
        )
        return BoxedScene(image, size, Things(boxes, labels, torch.zeros(len(rows), dtype=torch.bool)), places)

    def _read(self, part: str) -> list[Labelled]:
        folder = self.path() / part
        file = folder / "label.csv"
        if not file.is_file():
            raise self._missing(file)
        rows = _read_rows(file, self.class_names)
        pictures = [Labelled(folder / "images" / name, found) for name, found in rows.items()]
        _warn_of_others(folder / "images", rows)
        return pictures

    def _missing(self, file: Path) -> DataError:
        root = self.path()
        if root.name == self.folder:
            return NoSourceError(file.parent.name, [Attempt(str(file), "no such file")], [root / ARCHIVE.name])
        return DataError(
            f"{file}: no such file. BananaDetection reads {TRAIN} and {TEST}, each with images and label.csv, in ROOT. "
            f"Only a folder called {self.folder} is downloaded into."
        )


def _warn_of_others(folder: Path, named: Collection[str]) -> None:
    """One warning about pictures that no row names."""
    files = (file.relative_to(folder).as_posix() for file in picture_files(folder))
    if others := [name for name in files if name not in named]:
        found = f"{len(others)} of its pictures, such as {others[0]}"
        rank_zero_warn(f"{folder}: no row of label.csv names {found}; they are not used.")


def _read_rows(file: Path, class_names: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of each picture, in the order of the table. Raises DataError naming the line."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    found: dict[str, list[Row]] = {}
    try:
        header = next(reader, [])
        if missing := [name for name in COLUMNS if name not in header]:
            raise DataError(
                f"{file}, line 1: lacks {', '.join(missing)}; expected the columns {','.join(COLUMNS)}, found "
                f"{','.join(header) or 'nothing'}."
            )
        places = [header.index(name) for name in COLUMNS]
        for fields in reader:
            if fields:
                where = f"{file}, line {reader.line_num}"
                if len(fields) != len(header):
                    raise DataError(f"{where}: has {len(fields)} fields, expected {len(header)} as in the first line.")
                name, *values = (fields[place] for place in places)
                found.setdefault(name, []).append(_row(where, values, class_names))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: is no CSV: {error}.") from error
    if not found:
        raise DataError(f"{file}: has no rows; expected one for each box.")
    return found


def _row(where: str, values: Sequence[str], class_names: Sequence[str]) -> Row:
    label, *corners = (_number(where, name, value) for name, value in zip(COLUMNS[1:], values, strict=True))
    if not label.is_integer() or not 0 <= label < len(class_names):
        known = f"0 to {len(class_names) - 1}" if len(class_names) > 1 else "0"
        raise DataError(
            f"{where}: label is {label:g}, expected {known}: {', '.join(class_names)}. --data.classes names others."
        )
    return Row(where, int(label), tuple(corners))


def _number(where: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is {value!r}, expected a number.")
    return number


def write_part(
    folder: Path,
    count: int,
    generator: torch.Generator,
    width: int,
    height: int,
    most: int = 1,
    kinds: int = 1,
    side: int = 24,
) -> None:
    """Write made-up pictures of 1 to `most` shapes of `kinds` in the data set's layout, for tests."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for number in range(count):
        shapes_wanted = int(torch.randint(1, most + 1, (), generator=generator))
        picture, shapes = shapes_picture(generator, width, height, shapes_wanted, kinds, side)
        picture.save(folder / "images" / f"{number}.png")
        rows += [(f"{number}.png", kind, *box) for kind, box in shapes]
    write_csv(folder / "label.csv", rows)
