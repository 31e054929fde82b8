"""Pascal VOC's segmentation task, and every data set that is laid out as it is: images with a mask for each."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from leyden.batches import VOID, SegmentationFacts, SegmentedImages
from leyden.data import Split
from leyden.errors import DataError
from leyden_datamodules._crops import Augmentation, CropData
from leyden_datamodules._images import input_files, upright_size
from leyden_datamodules._masks import Colour, MaskReader, palette_of, voc_palette
from leyden_datamodules._scenes import Scene, Scenes, clear_padding, pad
from leyden_datamodules._voc import VOC_CLASSES, Listed, VOCData, read_classes, require_files

logger = logging.getLogger("leyden")


@dataclass(frozen=True)
class SegmentedScene(Scene):
    """A picture with its mask.

    mask: its file; None where nobody knows the classes.
    """

    mask: Path | None = None


class SegmentedScenes(Scenes[SegmentedScene]):
    """Scenes with masks: random crops of one size with an augmentation, else whole scenes padded to the largest.

    reader: of the masks; None where there are none. augmentation: what training does with each scene; None hands them
    out whole.
    """

    planes = 4  # the last is the mask

    def __init__(
        self,
        scenes: Sequence[SegmentedScene],
        reader: MaskReader | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(scenes)
        self.reader = reader
        self.augmentation = augmentation

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


class VOCSegmentation(VOCData[SegmentedImages], CropData[SegmentedImages]):
    """Pascal VOC's segmentation (Everingham et al. 2010), or your own data in its layout: a class for each pixel.

    The folder holds VOC<year>, or is itself laid out as that is: JPEGImages, SegmentationClass with a PNG for each
    image, and lists of names in ImageSets/Segmentation. In a palette or grey PNG a pixel's value is its class, 255 is
    void, which belongs to none; an RGB PNG shows the classes' colours. Where there is a test.txt, the three lists are
    the three splits. Where there is none, as in VOC, val.txt is the test split and validation is cut from train.txt.

    A file classes.txt names the classes, one on each line, perhaps with a colour behind it (`sky 128 128 128`). Without
    it they are VOC's 21. Colours that it does not give are those of the masks' own palette, or VOC's.

    Where the standard folder VOCdevkit lacks VOC<year>, it is downloaded (2 GB); the archive is kept.

    Args:
        drop_small: in training, leave pictures out that are smaller than the crop, as the book does.
        **voc_data: the arguments of every data module in Pascal VOC's layout, and of every one of random crops.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that is missing or cannot be used, naming it.
    """

    task = "Segmentation"
    parts = "SegmentationClass/*.png"

    def __init__(self, drop_small: bool = False, **voc_data: Any) -> None:
        super().__init__(**voc_data)
        self.drop_small = drop_small

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """31 pictures of two sizes, a disc and a box outlined with void on a dark ground: 19 train, 7 val, 5 test."""
        lists = root / "ImageSets" / cls.task
        for folder in (root / "JPEGImages", root / "SegmentationClass", lists):
            folder.mkdir(parents=True, exist_ok=True)
        (root / "classes.txt").write_text("ground\ndisc\nbox\n", encoding="utf-8")
        names = iter(f"scene_{number:02d}" for number in range(31))
        for split, count in {"train": 19, "val": 7, "test": 5}.items():
            chosen = [next(names) for _ in range(count)]
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
        for number in range(31):
            image, mask = _fabricated_scene(number)
            image.save(root / "JPEGImages" / f"scene_{number:02d}.jpg", quality=95)
            mask.save(root / "SegmentationClass" / f"scene_{number:02d}.png")
        return {"root": str(root), "crop_size": [32, 40], "batch_size": 4}

    def describe(self) -> SegmentationFacts:
        """Three channels, the names and colours of the classes."""
        return SegmentationFacts(channels=3, class_names=self._classes[0], palette=self._classes[1])

    def load_inputs(self, inputs: Sequence[str]) -> SegmentedScenes:
        """Picture files of any size, and folders of them, in the order given, each once, without masks."""
        return SegmentedScenes([SegmentedScene(file) for file in input_files(inputs)])

    def transform(self, batch: SegmentedImages, training: bool) -> SegmentedImages:
        """uint8 images as stored to float32, normalised; beyond an image's own size they stay 0."""
        images = self.normalized(batch.images)
        if not training:  # crops are full
            clear_padding(images, batch.sizes)
        return batch._replace(images=images)

    @cached_property
    def _classes(self) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
        """Name and colour of each class."""
        file = self.place / "classes.txt"
        if not file.is_file():
            if self.place.name != f"VOC{self.year}":
                logger.info("%s has no classes.txt: its masks are taken to be of Pascal VOC's 21 classes", self.place)
            return VOC_CLASSES, voc_palette(len(VOC_CLASSES))
        names, colours = read_classes(file)
        return names, colours or self._colours_of_masks(len(names))

    def _colours_of_masks(self, count: int) -> tuple[Colour, ...]:
        """The colours of the first mask whose palette tells the classes apart; else VOC's."""
        for mask in sorted((self.place / "SegmentationClass").glob("*.png")):
            with suppress(DataError):  # what is wrong with a mask is said when it is read
                colours = palette_of(mask)[:count]
                if len(set(colours)) == count:
                    return colours
        return voc_palette(count)

    @cached_property
    def _reader(self) -> MaskReader:
        names, colours = self._classes
        file = self.place / "classes.txt"
        return MaskReader(colours, f"the {len(names)} classes of {file if file.is_file() else 'VOC'}")

    def ready(self, listed: Sequence[Listed], split: Split) -> SegmentedScenes:
        """These scenes, checked, and decoded where they are held in memory."""
        scenes = [scene for _, scene in self.usable(self._scene, listed)]
        training = split == "train"
        if training and self.drop_small:
            scenes = self._large(scenes)
        source = SegmentedScenes(scenes, self._reader, self.augmentation() if training else None)
        self.prepare(source)
        if all(bool((source.pixels(index)[3] == VOID).all()) for index in range(len(source))):
            found = f"{self.place}: all pixels of all {len(source)} masks of the {split} split are void"
            raise DataError(f"{found}: {'nothing to learn' if training else 'nothing to compare with'}.")
        return source

    def _scene(self, listed: Listed) -> SegmentedScene:
        mask = self.place / "SegmentationClass" / f"{listed.name}.png"
        require_files(listed, mask=mask)
        return SegmentedScene(listed.image, mask)

    def _large(self, scenes: Sequence[SegmentedScene]) -> list[SegmentedScene]:
        """The scenes that are nowhere smaller than the crop."""
        height, width = self.crop_size
        sized = self.usable(lambda scene: upright_size(scene.image), scenes)
        large = [scene for scene, size in sized if size[0] >= height and size[1] >= width]
        if not large:
            raise DataError(
                f"{self.place}: all {len(scenes)} training images are smaller than the crop, {height} x {width}, and "
                "drop_small leaves them out. Make crop_size smaller."
            )
        logger.info("drop_small leaves out %d of %d training images", len(scenes) - len(large), len(scenes))
        return large


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
