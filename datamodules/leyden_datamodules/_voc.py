"""What the data modules in Pascal VOC's layout share: where it lies, its lists, splits and names of classes."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torchvision.datasets.voc import DATASET_YEAR_DICT

from leyden.batches import VOID
from leyden.data import Batch, Split
from leyden.download import Download, fetch, unpack_folder
from leyden.errors import DataError, UsageError
from leyden_datamodules._images import SUFFIXES
from leyden_datamodules._masks import Colour
from leyden_datamodules._scenes import SceneData
from leyden_datamodules._text import read_text

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Listed(NamedTuple):
    """A line of a list: the name of a scene, its picture's file, and for messages the list's file and the line."""

    name: str
    image: Path
    where: str


class VOCData(SceneData[Batch]):
    """Base of the data modules in Pascal VOC's layout.

    The folder holds VOC<year>, or is itself laid out as that is. Where there is a test.txt, the three lists are the
    three splits. Where there is none, as in VOC 2012, val.txt is the test split and validation is cut from train.txt.

    A subclass names the `task`, whose lists are in ImageSets/<task>, and what else it reads (`parts`).

    Args:
        year: of Pascal VOC; of no account for other data.
        val_fraction: share of train.txt cut for validation, by seed, where no list says what validates.
        **scene_data: the arguments of every data module of whole scenes.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that is missing or cannot be used, naming it.
    """

    folder = "VOCdevkit"
    task: ClassVar[str]
    parts: ClassVar[str]

    def __init__(self, year: int = 2012, val_fraction: float = 0.1, **scene_data: Any) -> None:
        super().__init__(**scene_data)
        years = sorted(int(key) for key in DATASET_YEAR_DICT if key.isdecimal())
        if year not in years:
            raise UsageError(f"year is {year}; Pascal VOC is of {years[0]} to {years[-1]}.")
        if not 0 < val_fraction < 1:
            raise UsageError(f"val_fraction is {val_fraction}; it must be above 0 and below 1.")
        self.year = year
        self.val_fraction = val_fraction

    def fetch(self) -> None:
        """Into a folder called VOCdevkit, from where torchvision says. Raises NoSourceError where that fails."""
        devkit = self.path()
        target = devkit / f"VOC{self.year}"
        if self._found() is not None or devkit.name != self.folder or target.exists():
            return
        # VOC 2007 has its test split in an archive of its own
        parts = [DATASET_YEAR_DICT[key] for key in (str(self.year), f"{self.year}-test") if key in DATASET_YEAR_DICT]
        archives = [fetch(_download(part), devkit) for part in parts]
        unpack_folder(archives, parts[0]["base_dir"], target)

    @cached_property
    def place(self) -> Path:
        """The folder that is laid out as VOC is. Raises DataError where there is none."""
        found = self._found()
        if found is None:
            root = self.path()
            problem = f"it lacks ImageSets/{self.task}" if root.is_dir() else "no such folder"
            raise DataError(
                f"{root}: {problem}. {type(self).__name__} reads JPEGImages/*.jpg, {self.parts} and "
                f"ImageSets/{self.task}/{{train,val,test}}.txt in the folder VOC<year> of ROOT, or in ROOT itself. "
                f"Only a folder called {self.folder} is downloaded into."
            )
        return found

    @property
    def is_official(self) -> bool:
        """Whether the data is Pascal VOC's own, by the name of its folder."""
        return re.fullmatch(r"VOC\d{4}", self.place.absolute().name) is not None

    def listed(self, split: Split) -> list[Listed]:
        """The scenes of a split, as they are listed or cut."""
        has = {name: self.list_file(name).is_file() for name in ("val", "test")}
        if split == "test":
            return self.read_list("test" if has["test"] else "val")
        if all(has.values()):
            return self.read_list(split)
        listed = self.read_list("train")
        if len(listed) < 2:
            raise DataError(f"{listed[0].where}: one image is too few to train on and to cut a validation split from.")
        count = min(max(1, round(self.val_fraction * len(listed))), len(listed) - 1)
        return self.cut(listed, count, split)

    def list_file(self, name: str) -> Path:
        """The file of the list `train`, `val` or `test`."""
        return self.place / "ImageSets" / self.task / f"{name}.txt"

    def read_list(self, name: str) -> list[Listed]:
        """The lines of a list. Raises DataError naming a file that is missing or lists nothing."""
        file = self.list_file(name)
        lines = enumerate(read_text(file).splitlines(), start=1)
        listed = [self._listed(line.strip(), f"{file}, line {number}") for number, line in lines if line.strip()]
        if not listed:
            raise DataError(f"{file}: lists no images; expected their names, one on each line, without a suffix.")
        return listed

    def _listed(self, name: str, where: str) -> Listed:
        images = self.place / "JPEGImages"
        candidates = [images / f"{name}{suffix}" for suffix in (".jpg", *sorted(SUFFIXES))]
        return Listed(name, next((path for path in candidates if path.is_file()), candidates[0]), where)

    def _found(self) -> Path | None:
        root = self.path()
        places = (root / f"VOC{self.year}", root)
        return next((place for place in places if (place / "ImageSets" / self.task).is_dir()), None)


def require_files(listed: Listed, **others: Path) -> None:
    """Raises DataError naming the line of the list where the image, or another file by what it is, does not exist."""
    for what, path in {"image": listed.image, **others}.items():
        if not path.is_file():
            raise DataError(f"{listed.where}: the {what} {path} does not exist.")


def read_classes(file: Path) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names of the classes in their order and, where the lines give them, colours. Raises DataError naming the line."""
    lines = [
        (number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), start=1) if line.strip()
    ]
    if not 1 <= len(lines) <= VOID:
        raise DataError(f"{file}: names {len(lines)} classes; expected 1 to {VOID}, one on each line.")
    entries = [(f"{file}, line {number}", *_name_and_colour(line)) for number, line in lines]
    coloured = any(colour for _, _, colour in entries)
    seen: dict[str | Colour, str] = {}
    for where, name, colour in entries:
        if coloured and (colour is None or max(colour) > 255):
            raise DataError(f"{where}: expected `name red green blue`, from 0 to 255, as other lines have a colour.")
        for mark in (name, colour) if colour else (name,):
            if mark in seen:
                raise DataError(f"{where}: {mark} again, as in {seen[mark]}; each class has its own name and colour.")
            seen[mark] = where
    return tuple(name for _, name, _ in entries), tuple(colour for _, _, colour in entries if colour)


def _name_and_colour(line: str) -> tuple[str, Colour | None]:
    match = re.fullmatch(r"(.*\S)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})", line)
    return (match[1], (int(match[2]), int(match[3]), int(match[4]))) if match else (line, None)


def _download(part: dict[str, str]) -> Download:
    name = part["url"].rpartition("/")[2]  # torchvision's own names are those of another year in places
    return Download(name, (part["url"],), f"md5:{part['md5']}")
