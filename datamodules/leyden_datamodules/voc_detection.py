"""Pascal VOC's detection task, and every data set that is laid out as it is: images with a box around each thing."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch

from leyden.batches import BoxedImages
from leyden.errors import DataError
from leyden_datamodules._boxes import BoxData, BoxedScene, Things, named_box
from leyden_datamodules._images import read_all, upright_size
from leyden_datamodules._scenes import Size
from leyden_datamodules._shapes import SHAPES, Shape, shapes_picture
from leyden_datamodules._voc import VOC_CLASSES, Listed, VOCData, read_classes, require_files

CORNERS = ("xmin", "ymin", "xmax", "ymax")
DIFFICULT = "difficult"


class Thing(NamedTuple):
    """An object of an annotation: its name, left, top, right, bottom as they are written, and whether it is hard."""

    name: str
    corners: tuple[float, ...]
    difficult: bool


class Annotation(NamedTuple):
    """What a file in Annotations says of its picture."""

    size: Size
    things: list[Thing]


class VOCDetection(VOCData[BoxedImages], BoxData):
    """Pascal VOC's detection (Everingham et al. 2010), or your own data in its layout: a box around each thing.

    The folder holds VOC<year>, or is itself laid out as that is: JPEGImages, Annotations with an XML file for each
    image, and lists of names in ImageSets/Main. Where there is a test.txt, the three lists are the three splits. Where
    there is none, as in VOC 2012, val.txt is the test split and validation is cut from train.txt. The names of the
    classes are those given; else VOC's 20 in a folder VOC<year>; else those of a file classes.txt, one on each line;
    else those that the annotations have, in alphabetical order.

    Boxes are left, top, right, bottom in pixels from the picture's corner. In a folder VOC<year> pixels are counted
    from 1, as Pascal VOC does: 1 is subtracted from left and top there.

    Where the standard folder VOCdevkit lacks VOC<year>, it is downloaded (2 GB); the archive is kept.

    Args:
        **box_data: the arguments of every data module in Pascal VOC's layout, and of every one of boxed things.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that is missing or cannot be used, naming it and the box.
    """

    task = "Main"
    parts = "Annotations/*.xml"

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """31 pictures of two sizes, two shapes on dark grounds, one without any: 19 train, 7 val, 5 test."""
        generator = torch.Generator().manual_seed(0)
        write_voc(root, {"train": 19, "val": 7, "test": 5}, generator, [(64, 64), (80, 60)], most=2, kinds=2)
        return {"root": str(root), "image_size": [64, 80], "batch_size": 4}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The given ones, or what the data says."""
        if self.classes is not None:
            return tuple(self.classes)
        if self.is_official:
            return VOC_CLASSES[1:]  # the first is the background
        if (file := self.place / "classes.txt").is_file():
            return read_classes(file)[0]
        found = sorted({thing.name for each in self._annotated() for thing in each.things})
        if not found:
            raise DataError(f"{self.place}: no annotation has an object; expected some to learn.")
        return tuple(found)

    def scene(self, listed: Listed) -> BoxedScene:
        """A picture with its boxes."""
        annotation, file = self._annotation(listed), self._file(listed)
        size = upright_size(listed.image)
        if size != annotation.size:
            found, expected = (f"{each[1]} x {each[0]}" for each in (annotation.size, size))
            raise DataError(f"{file}: its size is {found}, but its image {listed.image} has {expected} pixels.")
        places = tuple(
            f"{file}: {named_box(number, thing.name, thing.corners)}"
            for number, thing in enumerate(annotation.things, start=1)
        )
        labels = [self._label(thing.name, place) for thing, place in zip(annotation.things, places, strict=True)]
        boxes = torch.tensor([self._from_zero(thing.corners) for thing in annotation.things]).view(-1, 4)
        difficult = torch.tensor([thing.difficult for thing in annotation.things], dtype=torch.bool)
        return BoxedScene(listed.image, size, Things(boxes, torch.tensor(labels, dtype=torch.int64), difficult), places)

    def _file(self, listed: Listed) -> Path:
        return self.place / "Annotations" / f"{listed.name}.xml"

    def _annotation(self, listed: Listed) -> Annotation:
        file = self._file(listed)
        require_files(listed, annotation=file)
        return read_annotation(file)

    def _annotated(self) -> Iterable[Annotation]:
        """The annotations of all lists that there are; those to skip are counted when their scenes are made."""
        names = [name for name in ("train", "val", "test") if self.list_file(name).is_file()]
        listed = [one for name in names or ["train"] for one in self.read_list(name)]
        none = f"none of {len(listed)} annotations can be used"
        return [found for _, found in read_all(self._annotation, listed, self.on_error == "skip", none)[0]]

    def _label(self, name: str, place: str) -> int:
        if name not in self.class_names:
            known = ", ".join(self.class_names)
            raise DataError(f"{place} is of the class {name!r}; the classes are {known}. --data.classes names others.")
        return self.class_names.index(name)

    def _from_zero(self, corners: tuple[float, ...]) -> tuple[float, ...]:
        """Corners counted from the picture's corner."""
        if not self.is_official:
            return corners
        left, top, right, bottom = corners
        return (max(left - 1, min(left, 0)), max(top - 1, min(top, 0)), right, bottom)  # a 0 stays what it is


class DocumentTypeError(Exception):
    """An XML file has a document type, whose entities could make a small file take all memory."""


class NoDocumentType(ElementTree.TreeBuilder):
    """Builds the tree of an XML file, in whatever encoding, that has no document type."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """The parser calls it before it reads any entity."""
        raise DocumentTypeError


def read_annotation(file: Path) -> Annotation:
    """What an XML file of Pascal VOC says. Raises DataError naming the file and the object."""
    try:
        root = ElementTree.fromstring(file.read_bytes(), ElementTree.XMLParser(target=NoDocumentType()))
    except DocumentTypeError:
        raise DataError(f"{file}: has a document type, which no annotation needs; remove it.") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: is no XML: {error}.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}.") from error
    width, height = (_number(root.find(f"size/{side}"), f"{file}: the {side} in size") for side in ("width", "height"))
    if not all(side >= 1 and side.is_integer() for side in (width, height)):
        raise DataError(f"{file}: its size is {width:g} x {height:g}, expected the picture's width and height.")
    things = [_thing(element, f"{file}: object {number}") for number, element in enumerate(root.findall("object"), 1)]
    return Annotation((int(height), int(width)), things)


def _thing(element: Element, where: str) -> Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where} has no name; expected the name of its class.")
    corners = tuple(_number(element.find(f"bndbox/{corner}"), f"{where} ({name}): {corner}") for corner in CORNERS)
    return Thing(name, corners, (element.findtext(DIFFICULT) or "").strip() == "1")


def _number(element: Element | None, what: str) -> float:
    text = "" if element is None else (element.text or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{what} is {text!r}, expected a number." if text else f"{what} is missing.") from None
    if not -1e9 < value < 1e9:
        raise DataError(f"{what} is {text}, expected a number of pixels.")
    return value


def write_voc(
    root: Path,
    splits: dict[str, int],
    generator: torch.Generator,
    sizes: list[tuple[int, int]],
    most: int,
    kinds: int,
    side: int = 20,
) -> None:
    """Write made-up pictures of up to `most` shapes in Pascal VOC's layout, for tests; the third shows none.

    splits: how many pictures each list names. sizes: (width, height) of the pictures, in turn.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    number = 0
    for split, count in splits.items():
        names = [f"picture_{index:05d}" for index in range(number, number + count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{each}\n" for each in names))
        for name in names:
            width, height = sizes[number % len(sizes)]
            wanted = 0 if number == 2 else int(torch.randint(1, most + 1, (), generator=generator))
            picture, shapes = shapes_picture(generator, width, height, wanted, kinds, side)
            picture.save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            _write_annotation(root / "Annotations" / f"{name}.xml", (width, height), shapes, hard=number == 1)
            number += 1


def _write_annotation(file: Path, size: tuple[int, int], shapes: list[Shape], hard: bool) -> None:
    """hard: the first thing is difficult."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{file.stem}.jpg"
    of_size = ElementTree.SubElement(root, "size")
    for name, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        ElementTree.SubElement(of_size, name).text = str(value)
    for number, (kind, box) in enumerate(shapes):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = SHAPES[kind]
        ElementTree.SubElement(element, DIFFICULT).text = str(int(hard and number == 0))
        corners = ElementTree.SubElement(element, "bndbox")
        for name, value in zip(CORNERS, box, strict=True):
            ElementTree.SubElement(corners, name).text = str(value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file)
