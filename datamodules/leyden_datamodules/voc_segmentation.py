"""Pascal VOC's segmentation task, and every data set that is laid out as it is: images with a mask for each."""

import logging
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.transforms.v2 import InterpolationMode

from leyden.batches import VOID, SegmentationFacts, SegmentedImages
from leyden.data import BatchSource, Split
from leyden.download import Download, fetch, unpack
from leyden.errors import DataError, UsageError
from leyden.folds import Fold
from leyden_datamodules._images import SUFFIXES, input_files, upright_size
from leyden_datamodules._masks import Colour, MaskReader, palette_of, voc_palette
from leyden_datamodules._scenes import Augmentation, Scene, SceneData, Scenes, clear_padding, pad
from leyden_datamodules._text import read_text

logger = logging.getLogger("leyden")
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = Path("ImageSets", "Segmentation")
LAYOUT = (
    "VOCSegmentation reads JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val,test}.txt "
    "in the folder VOC<year> of ROOT, or in ROOT itself"
)


@dataclass(frozen=True)
class SegmentedScene(Scene):
    """A picture with its mask.

    mask: its file; None where nobody knows the classes. listed: the line of the list that names the scene.
    """

    mask: Path | None = None
    listed: str = ""


class SegmentedScenes(Scenes[SegmentedScene]):
    """Scenes with masks: random crops of one size with an augmentation, else whole scenes padded to the largest.

    reader: of the masks; None where there are none.
    """

    planes = 4  # the last is the mask

    def __init__(
        self,
        scenes: Sequence[SegmentedScene],
        reader: MaskReader | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(scenes, augmentation)
        self.reader = reader

    def __getitems__(self, indices: Sequence[int]) -> SegmentedImages:
        if self.augmentation is not None:
            return self._crops(indices, self.augmentation)
        whole = [self.pixels(index) for index in indices]
        sizes = torch.tensor([pixels.shape[1:] for pixels in whole])
        return SegmentedImages(
            pad([pixels[:3] for pixels in whole], 0), pad([pixels[3:] for pixels in whole], VOID)[:, 0], sizes
        )

    def _crops(self, indices: Sequence[int], augmentation: Augmentation) -> SegmentedImages:
        images = augmentation.blanks(len(indices))
        masks = torch.full((len(indices), 1, *augmentation.crop_size), VOID, dtype=torch.uint8)
        for index, image, mask in zip(indices, images, masks, strict=True):
            pixels, random = self.pixels(index), augmentation.random(self.epoch, index)
            window = augmentation.window((pixels.shape[1], pixels.shape[2]), random)
            window.paste(augmentation.recolour(window.cut(pixels[:3]), random), image)
            window.paste(window.cut(pixels[3:], InterpolationMode.NEAREST_EXACT), mask)
        return SegmentedImages(images, masks[:, 0], torch.tensor([augmentation.crop_size] * len(indices)))

    def decode(self, scene: SegmentedScene) -> Tensor:
        """Image and mask of a scene: (4, H, W) uint8. Raises DataError naming the file that cannot be used."""
        image = super().decode(scene)
        mask = image.new_full(image.shape[1:], VOID)
        if scene.mask is not None and self.reader is not None:
            mask = self.reader.read(scene.mask)
        if mask.shape != image.shape[1:]:
            found, expected = (f"{shape[1]} x {shape[0]}" for shape in (mask.shape, image.shape[1:]))
            raise DataError(
                f"{scene.mask}: {found} pixels, but its image {scene.image} has {expected}; they must be of one size."
            )
        return torch.cat((image, mask[None]))


class VOCSegmentation(SceneData[SegmentedImages]):
    """Pascal VOC's segmentation (Everingham et al. 2010), or your own data in its layout: a class for each pixel.

    The folder holds VOC<year>, or is itself laid out as that is: JPEGImages, SegmentationClass with a PNG for each
    image, and lists of names in ImageSets/Segmentation. In a palette or grey PNG a pixel's value is its class, 255 is
    void, which belongs to none; an RGB PNG shows the classes' colours. Where there is a test.txt, the three lists are
    the three splits. Where there is none, as in VOC, val.txt is the test split and validation is cut from train.txt.

    A file classes.txt names the classes, one on each line, perhaps with a colour behind it (`sky 128 128 128`). Without
    it they are VOC's 21. Colours that it does not give are those of the masks' own palette, or VOC's.

    Where the standard folder VOCdevkit lacks VOC<year>, it is downloaded (2 GB); the archive is kept.

    Args:
        year: of Pascal VOC; of no account for other data.
        drop_small: in training, leave pictures out that are smaller than the crop, as the book does.
        val_fraction: share of train.txt cut for validation, by seed, where no list says what validates.
        **scene_data: the arguments of every data module of whole scenes.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that is missing or cannot be used, naming it.
    """

    folder = "VOCdevkit"

    def __init__(
        self, year: int = 2012, drop_small: bool = False, val_fraction: float = 0.1, **scene_data: Any
    ) -> None:
        super().__init__(**scene_data)
        years = sorted(int(key) for key in DATASET_YEAR_DICT if key.isdecimal())
        if year not in years:
            raise UsageError(f"year is {year}; Pascal VOC is of {years[0]} to {years[-1]}.")
        if not 0 < val_fraction < 1:
            raise UsageError(f"val_fraction is {val_fraction}; it must be above 0 and below 1.")
        self.year = year
        self.drop_small = drop_small
        self.val_fraction = val_fraction

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """31 pictures of two sizes, a disc and a box outlined with void on a dark ground: 19 train, 7 val, 5 test."""
        for folder in ("JPEGImages", "SegmentationClass", LISTS):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "classes.txt").write_text("ground\ndisc\nbox\n", encoding="utf-8")
        names = iter(f"scene_{number:02d}" for number in range(31))
        for split, count in {"train": 19, "val": 7, "test": 5}.items():
            chosen = [next(names) for _ in range(count)]
            (root / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
        for number in range(31):
            image, mask = _fabricated_scene(number)
            image.save(root / "JPEGImages" / f"scene_{number:02d}.jpg", quality=95)
            mask.save(root / "SegmentationClass" / f"scene_{number:02d}.png")
        return {"root": str(root), "crop_size": [32, 40], "batch_size": 4}

    def fetch(self) -> None:
        """Into a folder called VOCdevkit, from where torchvision says. Raises NoSourceError where that fails."""
        devkit = self.path()
        target = devkit / f"VOC{self.year}"
        if self._found() is not None or devkit.name != self.folder or target.exists():
            return
        # VOC 2007 has its test split in an archive of its own
        parts = [DATASET_YEAR_DICT[key] for key in (str(self.year), f"{self.year}-test") if key in DATASET_YEAR_DICT]
        archives = [fetch(_download(part), devkit) for part in parts]
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=devkit) as temporary:
            for archive in archives:
                unpack(archive, Path(temporary))
            try:
                Path(temporary, parts[0]["base_dir"]).replace(target)
            except OSError as error:
                raise DataError(f"{archives[0]} cannot be unpacked to {target}: {error.strerror or error}.") from error

    def describe(self) -> SegmentationFacts:
        """Three channels, the names and colours of the classes."""
        return SegmentationFacts(channels=3, class_names=self._classes[0], palette=self._classes[1])

    def load(self, split: Split) -> BatchSource:
        """The scenes that the split's list names, or those cut for it."""
        return self._ready(self._listed(split), split)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """A part of all that may be trained on: augmented to train on it, whole to validate on it."""
        listed = [scene for name in ("train", "val") for scene in self._listed(name)]
        train, val = fold.cut(len(listed), self.seed)
        return self._ready([listed[index] for index in (train if split == "train" else val).tolist()], split)

    def load_inputs(self, inputs: Sequence[str]) -> SegmentedScenes:
        """Picture files of any size, and folders of them, in the order given, each once, without masks."""
        return SegmentedScenes([SegmentedScene(file) for file in input_files(inputs)])

    def transform(self, batch: SegmentedImages, training: bool) -> SegmentedImages:
        """uint8 images as stored to float32, normalised; beyond an image's own size they stay 0."""
        images = self.normalized(batch.images)
        if not training:  # crops are full
            clear_padding(images, batch.sizes)
        return batch._replace(images=images)

    def _found(self) -> Path | None:
        """The folder that is laid out as VOC is."""
        root = self.path()
        return next((place for place in (root / f"VOC{self.year}", root) if (place / LISTS).is_dir()), None)

    @cached_property
    def _place(self) -> Path:
        found = self._found()
        if found is None:
            root = self.path()
            problem = "it lacks ImageSets/Segmentation" if root.is_dir() else "no such folder"
            raise DataError(f"{root}: {problem}. {LAYOUT}. Only a folder called {self.folder} is downloaded into.")
        return found

    @cached_property
    def _classes(self) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
        """Name and colour of each class."""
        file = self._place / "classes.txt"
        if not file.is_file():
            if self._place.name != f"VOC{self.year}":
                logger.info("%s has no classes.txt: its masks are taken to be of Pascal VOC's 21 classes", self._place)
            return VOC_CLASSES, voc_palette(len(VOC_CLASSES))
        names, colours = read_classes(file)
        return names, colours or self._colours_of_masks(len(names))

    def _colours_of_masks(self, count: int) -> tuple[Colour, ...]:
        """The colours of the first mask whose palette tells the classes apart; else VOC's."""
        for mask in sorted((self._place / "SegmentationClass").glob("*.png")):
            with suppress(DataError):  # what is wrong with a mask is said when it is read
                colours = palette_of(mask)[:count]
                if len(set(colours)) == count:
                    return colours
        return voc_palette(count)

    @cached_property
    def _reader(self) -> MaskReader:
        names, colours = self._classes
        file = self._place / "classes.txt"
        return MaskReader(colours, f"the {len(names)} classes of {file if file.is_file() else 'VOC'}")

    def _listed(self, split: Split) -> list[SegmentedScene]:
        """The scenes of a split, as they are listed or cut."""
        has = {name: (self._place / LISTS / f"{name}.txt").is_file() for name in ("val", "test")}
        if split == "test":
            return self._read_list("test" if has["test"] else "val")
        if all(has.values()):
            return self._read_list(split)
        listed = self._read_list("train")
        if len(listed) < 2:
            raise DataError(f"{listed[0].listed}: one image is too few to train on and to cut a validation split from.")
        count = min(max(1, round(self.val_fraction * len(listed))), len(listed) - 1)
        order = torch.randperm(len(listed), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[:count] if split == "val" else order[count:]
        return [listed[index] for index in chosen.sort().values.tolist()]

    def _read_list(self, name: str) -> list[SegmentedScene]:
        file = self._place / LISTS / f"{name}.txt"
        lines = enumerate(read_text(file).splitlines(), start=1)
        scenes = [self._scene(line.strip(), f"{file}, line {number}") for number, line in lines if line.strip()]
        if not scenes:
            raise DataError(f"{file}: lists no images; expected their names, one on each line, without a suffix.")
        return scenes

    def _scene(self, name: str, listed: str) -> SegmentedScene:
        images = self._place / "JPEGImages"
        candidates = [images / f"{name}{suffix}" for suffix in (".jpg", *sorted(SUFFIXES))]
        image = next((path for path in candidates if path.is_file()), candidates[0])
        return SegmentedScene(image, self._place / "SegmentationClass" / f"{name}.png", listed)

    def _ready(self, listed: Sequence[SegmentedScene], split: Split) -> SegmentedScenes:
        """These scenes, checked, and decoded where they are held in memory."""
        scenes = [scene for scene, _ in self.usable(_require_files, listed)]
        training = split == "train"
        if training and self.drop_small:
            scenes = self._large(scenes)
        source = SegmentedScenes(scenes, self._reader, self.augmentation() if training else None)
        self.prepare(source)
        if all(bool((source.pixels(index)[3] == VOID).all()) for index in range(len(source))):
            found = f"{self._place}: all pixels of all {len(source)} masks of the {split} split are void"
            raise DataError(f"{found}: {'nothing to learn' if training else 'nothing to compare with'}.")
        return source

    def _large(self, scenes: Sequence[SegmentedScene]) -> list[SegmentedScene]:
        """The scenes that are nowhere smaller than the crop."""
        height, width = self.crop_size
        sized = self.usable(lambda scene: upright_size(scene.image), scenes)
        large = [scene for scene, size in sized if size[0] >= height and size[1] >= width]
        if not large:
            raise DataError(
                f"{self._place}: all {len(scenes)} training images are smaller than the crop, {height} x {width}, and "
                "drop_small leaves them out. Make crop_size smaller."
            )
        logger.info("drop_small leaves out %d of %d training images", len(scenes) - len(large), len(scenes))
        return large


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


def _require_files(scene: SegmentedScene) -> None:
    for what, path in (("image", scene.image), ("mask", scene.mask)):
        if path is not None and not path.is_file():
            raise DataError(f"{scene.listed}: the {what} {path} does not exist.")


def _download(part: dict[str, str]) -> Download:
    name = part["url"].rpartition("/")[2]  # torchvision's own names are those of another year in places
    return Download(name, (part["url"],), f"md5:{part['md5']}")


def _fabricated_scene(number: int) -> tuple[Image.Image, Image.Image]:
    """An image of 36 x 48 or 56 x 40 pixels, and its mask: a reddish disc and a greenish box on dark noise."""
    generator = torch.Generator().manual_seed(number)
    width, height = ((36, 48), (56, 40))[number % 2]
    noise = torch.randint(0, 70, (height, width, 3), generator=generator, dtype=torch.uint8)
    image, mask = Image.fromarray(noise.numpy()), Image.new("P", (width, height))
    mask.putpalette([value for colour in voc_palette(VOID + 1) for value in colour])
    halves = torch.randperm(2, generator=generator).tolist()  # the disc is in one, the box in the other
    for index, half, colour in zip((1, 2), halves, ((200, 90, 60), (60, 190, 110)), strict=True):
        left = half * width // 2 + int(torch.randint(1, width // 2 - 15, (), generator=generator))
        top = int(torch.randint(1, height - 17, (), generator=generator))
        box = (left, top, left + 14, top + 16)
        for canvas, fill, outline in ((image, colour, colour), (mask, index, VOID)):
            draw = ImageDraw.Draw(canvas)
            shape = draw.ellipse if index == 1 else draw.rectangle
            shape(box, fill=fill, outline=outline)
    return image, mask
