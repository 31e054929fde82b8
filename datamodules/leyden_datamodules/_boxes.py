"""What the data modules of boxed things share: pictures fitted into one size, augmented together with their boxes."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from leyden.batches import BoxedImages, DetectionFacts
from leyden.data import Split
from leyden.errors import DataError, UsageError
from leyden_datamodules._images import input_files, upright_size
from leyden_datamodules._scenes import Colour, Scene, SceneData, Scenes, Size, clear_padding

NO_THING = -1
SMALLEST_CROPPED = 4  # pixels of a side
ADVICE = "--data.on_error skip leaves such boxes out; clip puts corners in order and cuts boxes at the picture's edges"


class Things(NamedTuple):
    """What a picture shows.

    boxes: (n, 4) float32 xyxy in pixels of the picture. labels: (n,) int64 class indices. difficult: (n,) bool.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor

    def select(self, chosen: Tensor) -> "Things":
        """Those of a mask (n,) bool."""
        return Things(*(each[chosen] for each in self))


NOTHING = Things(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))


@dataclass(frozen=True, eq=False)
class BoxedScene(Scene):
    """A picture with its height and width in pixels, and the things that it shows.

    places: what each box is called in messages, until the boxes are checked.
    """

    size: Size
    things: Things = field(default=NOTHING)
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxAugmentation:
    """How training changes pictures and their boxes.

    flip, vertical_flip: half of the pictures are mirrored. zoom_out: half of the pictures are laid into a blank one of
    up to this many times their sides; 0 is off. iou_crop: most pictures are cut to a part that shows some thing.
    photometric: brightness, contrast, saturation, hue and the order of the channels change. blank: the colour (red,
    green, blue) from 0 to 1 of blank parts. seed: all randomness follows from it, the epoch and the picture's number.
    """

    flip: bool
    vertical_flip: bool
    zoom_out: float
    iou_crop: bool
    photometric: bool
    blank: Colour
    seed: int

    @property
    def needs_originals(self) -> bool:
        """Whether pictures must not be fitted before they are changed."""
        return bool(self.zoom_out) or self.iou_crop

    @contextmanager
    def randomness(self, epoch: int, index: int) -> Iterator[None]:
        """Torch's global generator, which torchvision draws from, is that of one picture in one epoch meanwhile."""
        state = torch.get_rng_state()
        own = np.random.SeedSequence((self.seed % 2**64, epoch, index)).generate_state(2)
        torch.default_generator.manual_seed(int(own[0]) << 31 | int(own[1]))  # not that of any GPU
        try:
            yield
        finally:
            torch.set_rng_state(state)

    def move(self, image: Tensor, things: Things) -> tuple[Tensor, Things]:
        """Change where things are: image (3, H, W) uint8 to one of another size."""
        height, width = image.shape[1:]
        boxes = tv_tensors.BoundingBoxes(things.boxes, format="XYXY", canvas_size=(height, width))
        sample: Any = (tv_tensors.Image(image), boxes, things.labels, things.difficult)
        for move in self._moves:
            if not isinstance(move, v2.RandomIoUCrop) or _has_crops(*sample[:2]):
                sample = move(*sample)
        image, boxes, labels, difficult = sample
        return image.as_subclass(Tensor), Things(boxes.as_subclass(Tensor), labels, difficult)

    def recolour(self, image: Tensor) -> Tensor:
        """Change the colours of an image (3, H, W) uint8."""
        return v2.RandomPhotometricDistort()(image) if self.photometric else image

    @cached_property
    def _moves(self) -> list[v2.Transform]:
        moves: list[v2.Transform] = []
        if self.zoom_out:
            fill = [round(255 * value) for value in self.blank]
            moves.append(v2.RandomZoomOut(fill={tv_tensors.Image: fill, "others": 0}, side_range=(1.0, self.zoom_out)))
        if self.iou_crop:
            moves.append(v2.RandomIoUCrop())
        if self.needs_originals:
            moves.append(v2.SanitizeBoundingBoxes(labels_getter=_labels_and_difficult))
        moves += [v2.RandomHorizontalFlip()] if self.flip else []
        moves += [v2.RandomVerticalFlip()] if self.vertical_flip else []
        return moves


def _labels_and_difficult(sample: Sequence[Tensor]) -> Sequence[Tensor]:
    return sample[2:]


def _has_crops(image: Tensor, boxes: Tensor) -> bool:
    """Whether torchvision can cut out a part that shows a thing; it divides by the part's sides, .3 of these."""
    return len(boxes) > 0 and min(image.shape[1:]) >= SMALLEST_CROPPED


def fitted_size(size: Size, image_size: Size) -> Size:
    """The largest size of the same shape, as far as whole pixels allow, that fits into image_size."""
    scale = min(room / side for room, side in zip(image_size, size, strict=True))
    height, width = (min(room, max(1, round(side * scale))) for room, side in zip(image_size, size, strict=True))
    return height, width


def fit(image: Tensor, image_size: Size) -> Tensor:
    """An image (3, H, W) uint8, resized to fit into image_size."""
    height, width = fitted_size((image.shape[1], image.shape[2]), image_size)
    if image.shape[1:] == (height, width):
        return image
    resized: Tensor = v2.functional.resize(image, [height, width], antialias=True)
    return resized


class BoxedScenes(Scenes[BoxedScene]):
    """Scenes with boxes, each fitted into the upper left corner of an image of one size.

    image_size: height and width of the images. augmentation: what training does with each scene; None changes nothing.
    """

    def __init__(
        self, scenes: Sequence[BoxedScene], image_size: Size, augmentation: BoxAugmentation | None = None
    ) -> None:
        super().__init__(scenes)
        self.image_size = image_size
        self.augmentation = augmentation

    @property
    def keeps_originals(self) -> bool:
        """Whether scenes are decoded at their own size, not fitted."""
        return self.augmentation is not None and self.augmentation.needs_originals

    def __getitems__(self, indices: Sequence[int]) -> BoxedImages:
        images = torch.zeros((len(indices), 3, *self.image_size), dtype=torch.uint8)
        sizes, found = [], []
        for index, image in zip(indices, images, strict=True):
            pixels, things = self._item(index)
            height, width = pixels.shape[1:]
            image[:, :height, :width] = pixels
            sizes.append((height, width))
            found.append(things)
        originals = [self.scenes[index].size for index in indices]
        return BoxedImages(images, *_padded(found), torch.tensor(sizes), torch.tensor(originals))

    def decode(self, scene: BoxedScene) -> Tensor:
        """A scene's picture: (3, H, W) uint8, fitted unless its own size is needed."""
        image = super().decode(scene)
        return image if self.keeps_originals else fit(image, self.image_size)

    def size(self, scene: BoxedScene) -> Size:
        """Height and width of what `decode` gives."""
        return scene.size if self.keeps_originals else fitted_size(scene.size, self.image_size)

    def _item(self, index: int) -> tuple[Tensor, Things]:
        """A fitted image with its things, in its pixels."""
        pixels, scene = self.pixels(index), self.scenes[index]
        things = _scaled(scene.things, scene.size, (pixels.shape[1], pixels.shape[2]))
        if self.augmentation is None:
            return pixels, things
        with self.augmentation.randomness(self.epoch, index):
            moved, things = self.augmentation.move(pixels, things)
            fitted = fit(moved, self.image_size)
            things = _scaled(things, (moved.shape[1], moved.shape[2]), (fitted.shape[1], fitted.shape[2]))
            return self.augmentation.recolour(fitted), things


def _scaled(things: Things, old: Size, new: Size) -> Things:
    if old == new:
        return things
    before, after = (torch.tensor([width, height] * 2) for height, width in (old, new))
    return things._replace(boxes=things.boxes * after / before)  # in this order an edge stays an edge to the last bit


def _padded(found: Sequence[Things]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, M, 4), labels (B, M) and difficult (B, M) of a batch."""
    most = max(1, *(len(things.labels) for things in found))
    boxes = torch.zeros(len(found), most, 4)
    labels = torch.full((len(found), most), NO_THING)
    difficult = torch.zeros(len(found), most, dtype=torch.bool)
    for place, things in enumerate(found):
        count = len(things.labels)
        boxes[place, :count], labels[place, :count], difficult[place, :count] = things
    return boxes, labels, difficult


class BoxData(SceneData[BoxedImages]):
    """Base of the data modules of boxed things.

    Args:
        image_size: [height, width] in pixels of all images of a batch. Each picture is resized to fit into it, never
            distorted, and lies in the upper left corner; what is left over is 0.
        vertical_flip: in training, turn each picture upside down with probability one half.
        zoom_out: in training, lay half of the pictures into a blank one of up to this many times their height and
            width, so that things are seen smaller (Liu et al. 2016, section 3.6, use 4). 0 is off.
        iou_crop: in training, cut most pictures to a part that shows some thing (Liu et al. 2016, section 2.2).
        photometric: in training, change brightness, contrast, saturation, hue and the order of the channels.
        classes: the names of the classes, in order; without it what the data says.
        on_error: what to do about a box that is outside its picture, has no area, or has its corners exchanged, and
            about a scene whose files cannot be used. `raise` stops; `skip` leaves the box, or the scene, out; `clip`
            puts corners in order, cuts boxes at the picture's edges, leaves out those that then have no area, and stops
            for a scene. What is left out or changed is counted in one warning.
        **scene_data: the arguments of every data module of whole scenes.

    Raises:
        UsageError: for a value out of its range.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        vertical_flip: bool = False,
        zoom_out: float = 0.0,
        iou_crop: bool = False,
        photometric: bool = False,
        classes: list[str] | None = None,
        on_error: Literal["raise", "skip", "clip"] = "raise",
        **scene_data: Any,
    ) -> None:
        super().__init__(on_error="skip" if on_error == "skip" else "raise", **scene_data)
        if min(image_size) < 1:
            raise UsageError(f"image_size is {list(image_size)}; height and width must be at least 1 pixel.")
        if zoom_out and zoom_out < 1:
            raise UsageError(f"zoom_out is {zoom_out}; it must be at least 1, or 0 (off).")
        if classes is not None and (not classes or len(set(classes)) < len(classes)):
            raise UsageError(f"classes is {classes}; it must be one or more names, each once.")
        self.image_size = (image_size[0], image_size[1])
        self.vertical_flip = vertical_flip
        self.zoom_out = zoom_out
        self.iou_crop = iou_crop
        self.photometric = photometric
        self.classes = classes
        self.bad_boxes = on_error

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in order."""

    @abstractmethod
    def scene(self, listed: Any) -> BoxedScene:
        """The scene made from what was listed, its boxes as they are written. Raises DataError naming the file."""

    def describe(self) -> DetectionFacts:
        """Three channels, the names of the classes."""
        return DetectionFacts(channels=3, class_names=self.class_names)

    def augmentation(self) -> BoxAugmentation:
        """What training does with each scene; its randomness follows --seed_everything, as the order does."""
        moves = (self.flip, self.vertical_flip, self.zoom_out, self.iou_crop)
        return BoxAugmentation(*moves, self.photometric, self.mean, self._order_seed())

    def ready(self, listed: Sequence[Any], split: Split) -> BoxedScenes:
        """These scenes, checked, and decoded where they are held in memory."""
        assert self.class_names  # known before threads ask for them
        scenes = [self._checked(scene) for _, scene in self.usable(self.scene, listed)]
        source = BoxedScenes(scenes, self.image_size, self.augmentation() if split == "train" else None)
        self.prepare(source)
        if not any(len(scene.things.labels) for scene in source.scenes):
            found = f"{self.path()}: none of {len(source)} pictures of the {split} split has a box"
            raise DataError(f"{found}: nothing to {'learn' if split == 'train' else 'compare with'}.")
        return source

    def load_inputs(self, inputs: Sequence[str]) -> BoxedScenes:
        """Picture files of any size, and folders of them, in the order given, each once, without boxes."""
        return BoxedScenes([BoxedScene(file, upright_size(file)) for file in input_files(inputs)], self.image_size)

    def transform(self, batch: BoxedImages, training: bool) -> BoxedImages:
        """uint8 images as stored to float32, normalised; beyond an image's own size they stay 0."""
        return batch._replace(images=clear_padding(self.normalized(batch.images), batch.sizes))

    def _checked(self, scene: BoxedScene) -> BoxedScene:
        """A scene with the boxes that can be learnt. Raises DataError for the first that cannot: `on_error`."""
        things, size = scene.things, scene.size
        wrong = _problems(things.boxes, size)
        if not wrong:
            return replace(scene, places=())
        messages = {box: f"{scene.places[box]} {problem}" for box, problem in wrong.items()}
        if self.bad_boxes == "raise":
            raise DataError(f"{next(iter(messages.values()))}. {ADVICE}.")
        gone = wrong
        if self.bad_boxes == "clip":
            things = things._replace(boxes=_clipped(things.boxes, size))
            gone = _problems(things.boxes, size)
            self.left_out([messages[box] for box in wrong if box not in gone], "boxes", "cut")
        self.left_out([messages[box] for box in gone], "boxes")
        kept = torch.ones(len(things.labels), dtype=torch.bool)
        kept[list(gone)] = False
        return replace(scene, things=things.select(kept), places=())


def _problems(boxes: Tensor, size: Size) -> dict[int, str]:
    """What is wrong with each of these boxes, by its number."""
    height, width = size
    found = {}
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        if right < left or bottom < top:
            found[number] = "has its corners exchanged, expected left, top, right, bottom"
        elif left < 0 or top < 0 or right > width or bottom > height:
            found[number] = f"reaches beyond its picture, which is {width} x {height} pixels"
        elif right == left or bottom == top:
            found[number] = "has no area"
    return found


def _clipped(boxes: Tensor, size: Size) -> Tensor:
    """Boxes with their corners in order, cut at the picture's edges."""
    corners = boxes.view(-1, 2, 2)
    limits = torch.tensor([size[1], size[0]], dtype=boxes.dtype)
    low, high = (torch.minimum(each.clamp(min=0), limits) for each in (corners.amin(dim=1), corners.amax(dim=1)))
    return torch.cat((low, high), dim=1)


def named_box(number: int, name: str, corners: Sequence[float]) -> str:
    """What a box is called in messages: `box 3 (RBC 504 337 504 337)`."""
    return f"box {number} ({name} {' '.join(f'{value:g}' for value in corners)})"


def require_image(image: Path, where: str) -> None:
    """Raises DataError naming the line where the image does not exist."""
    if not image.is_file():
        raise DataError(f"{where}: the image {image} does not exist.")
