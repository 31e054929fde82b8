"""Detection in Pascal VOC's layout: splits, annotations, classes, coordinates, folds, and what may be wrong."""

import re
import runpy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from leyden.batches import BoxedImages, DetectionFacts
from leyden.download import NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules import _voc
from leyden_datamodules._voc import VOC_CLASSES
from leyden_datamodules.voc_detection import Annotation, Thing, VOCDetection, read_annotation

pytestmark = pytest.mark.usefixtures("nothing_else_here")
SPLITS = ("train", "val", "test")
generate = runpy.run_path(str(Path(__file__).parents[1] / "generate_boxes.py"))["generate"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scenes"


@pytest.fixture
def arguments(root: Path) -> dict[str, Any]:
    return VOCDetection.fabricate(root)


def an_object(name: str = "cat", box: Sequence[Any] = (2, 3, 10, 12), rest: str = "") -> str:
    corners = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{rest}<bndbox>{corners}</bndbox></object>"


def annotation(objects: str = "", size: str = "<size><width>20</width><height>16</height></size>") -> str:
    return f"<annotation>{size}{objects}</annotation>"


def write(root: Path, lists: dict[str, list[str]]) -> None:
    """A set in the layout: noise of 20 x 16 pixels, `lists` the annotations by the name of the list."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, texts in lists.items():
        names = [f"{split}_{number}" for number in range(len(texts))]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, text in zip(names, texts, strict=True):
            Image.fromarray(random.integers(0, 256, (16, 20, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
            (root / "Annotations" / f"{name}.xml").write_text(text)


def one_object(root: Path, **changes: Any) -> None:
    """A set with one picture in each split."""
    write(root, {split: [annotation(an_object(**changes))] for split in SPLITS})


def names(source: Any) -> list[str]:
    return [Path(name).stem for name in source.inputs]


def source_of(data: VOCDetection, split: Any) -> Any:
    return data.load(split)


def everything(source: Any) -> BoxedImages:
    batch: BoxedImages = source.__getitems__(range(len(source)))
    return batch


# what is read


def test_fabricated_set(arguments: dict[str, Any]) -> None:
    data = VOCDetection(**arguments)
    data.prepare_data()  # nothing to fetch
    for stage in ("fit", "test"):
        data.setup(stage)
    assert VOCDetection.batch_type() is BoxedImages
    assert data.facts == DetectionFacts(3, ("bar", "disc"))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 19, "val": 7, "test": 5}
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, *arguments["image_size"])
    train = everything(source_of(VOCDetection(**arguments, flip=False), "train"))
    assert train.difficult.sum() == 1
    assert (train.labels < 0).all(1).sum() == 1  # a picture without anything
    assert {tuple(size) for size in train.original_sizes.tolist()} == {(64, 64), (60, 80)}


def test_shapes_fill_their_boxes(arguments: dict[str, Any]) -> None:
    batch = everything(source_of(VOCDetection(**{**arguments, "image_size": (128, 160)}), "test"))
    for image, boxes, labels in zip(batch.images.int(), batch.boxes, batch.labels, strict=True):
        for box, label in zip(boxes[labels >= 0].tolist(), labels[labels >= 0].tolist(), strict=True):
            left, top, right, bottom = map(round, box)
            channel = 2 - 2 * label  # bars are blue, discs are red
            bright = image[channel] > 140
            # a box that is shifted or too large has a side without a pixel of its thing
            for inside in (bright[top:bottom, left:right], bright[top:bottom, left:right].T):
                lines = inside.any(1).nonzero()[:, 0]
                assert (lines.min(), lines.max()) == pytest.approx((0, len(inside) - 1), abs=1)


def test_annotations_are_read_as_torchvision_does(arguments: dict[str, Any], root: Path) -> None:
    source = source_of(VOCDetection(**arguments), "test")
    torchvisions: Any = object.__new__(datasets.VOCDetection)  # the oracle, told where our files are
    torchvisions.images, torchvisions.transforms = source.inputs, None
    torchvisions.targets = [str(root / "Annotations" / f"{name}.xml") for name in names(source)]
    for scene, (picture, target) in zip(source.scenes, torchvisions, strict=True):
        assert scene.size == (picture.height, picture.width)
        objects = target["annotation"]["object"]
        corners = [[float(each["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for each in objects]
        assert scene.things.boxes.tolist() == corners
        assert [("bar", "disc")[label] for label in scene.things.labels.tolist()] == [each["name"] for each in objects]
        assert scene.things.difficult.tolist() == [each["difficult"] == "1" for each in objects]


def test_an_annotation_as_people_write_them(tmp_path: Path) -> None:
    """Fractions, blanks, empty fields, parts with boxes of their own, another order."""
    file = tmp_path / "a.xml"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    objects = an_object("cat", (1.25, " 2\n", "3e1", 40.0), "<difficult/>" + part)
    objects += an_object(" tv monitor\n", rest="<difficult> 1 </difficult>")
    file.write_text(annotation(objects, "<size>\n<height> 48.0</height><width>64</width><depth/></size>"))
    things = [Thing("cat", (1.25, 2, 30, 40), False), Thing("tv monitor", (2, 3, 10, 12), True)]
    assert read_annotation(file) == Annotation((48, 64), things)
    file.write_bytes(file.read_text().encode("utf-16"))
    assert read_annotation(file).things == things
    file.write_text(annotation())
    assert read_annotation(file) == Annotation((16, 20), [])


@pytest.mark.parametrize(("folder", "counted_from"), [("VOC2012", 1), ("VOC2007", 1), ("cells", 0), ("VOC", 0)])
def test_only_pascal_voc_counts_from_one(tmp_path: Path, folder: str, counted_from: int) -> None:
    """There the first pixel is 1 and a box of one pixel has equal corners; 0, which tools write, is the edge."""
    root = tmp_path / folder
    boxes = [(1, 1, 20, 16), (3, 4, 10, 12), (0, 0.5, 5, 5)]
    write(root, {split: [annotation("".join(an_object("cat", box) for box in boxes))] for split in SPLITS})
    batch = everything(source_of(VOCDetection(root=str(root), image_size=(16, 20)), "test"))
    expected = {0: [list(box) for box in boxes], 1: [[0, 0, 20, 16], [2, 3, 10, 12], [0, 0, 5, 5]]}
    assert batch.boxes[0].tolist() == expected[counted_from]
    one_object(root, box=(5, 5, 5, 9))
    if counted_from:
        assert everything(source_of(VOCDetection(root=str(root), image_size=(16, 20)), "val")).boxes.tolist() == [
            [[4, 4, 5, 9]]
        ]
    else:
        with pytest.raises(DataError, match=r"val_0\.xml: box 1 \(cat 5 5 5 9\) has no area"):
            VOCDetection(root=str(root)).load("val")
    one_object(root, box=(-1, 5, 7, 9))
    with pytest.raises(DataError, match=r"box 1 \(cat -1 5 7 9\) reaches beyond its picture, which is 20 x 16"):
        VOCDetection(root=str(root)).load("val")


def test_pascal_vocs_splits(tmp_path: Path) -> None:
    """Without test.txt, val.txt is the test split, and validation is cut from train.txt."""
    devkit, text = tmp_path / "VOCdevkit", annotation(an_object())
    write(devkit / "VOC2012", {"train": [text] * 20, "val": [text] * 4})
    write(devkit / "VOC2007", {"train": [text] * 3, "val": [text] * 2, "test": [text] * 5})
    data = VOCDetection(root=str(devkit))
    assert data.describe() == DetectionFacts(3, VOC_CLASSES[1:])
    parts = {split: names(source_of(data, split)) for split in SPLITS}
    assert parts["test"] == [f"val_{number}" for number in range(4)]
    assert len(parts["val"]) == 2
    assert sorted(parts["train"] + parts["val"]) == sorted(f"train_{number}" for number in range(20))
    older = VOCDetection(root=str(devkit), year=2007)
    assert [len(source_of(older, split)) for split in SPLITS] == [3, 2, 5]
    itself = VOCDetection(root=str(devkit / "VOC2007"))
    assert [len(source_of(itself, split)) for split in SPLITS] == [3, 2, 5]
    assert itself.describe() == DetectionFacts(3, VOC_CLASSES[1:])


def test_folds(arguments: dict[str, Any]) -> None:
    validated: list[str] = []
    for number in (1, 2, 3):
        data = VOCDetection(**arguments, fold=f"{number}/3")
        data.setup("fit")
        train: Any = data.splits["train"]
        val: Any = data.splits["val"]
        assert (train.augmentation is None, val.augmentation is None) == (False, True)
        assert not set(names(train)) & set(names(val))
        assert len(train) + len(val) == 26
        validated += names(val)
    assert len(set(validated)) == len(validated) == 26


def test_many_boxes_and_classes(root: Path) -> None:
    """What tests/generate_boxes.py makes."""
    options = generate(root, "voc", pictures=50, boxes=6, classes=3, size=128, seed=1)
    assert options == f"--data VOCDetection --data.root {root} --data.image_size [128,128]"
    data = VOCDetection(root=str(root), image_size=(128, 128))
    data.setup("fit")
    data.setup("test")
    assert data.facts == DetectionFacts(3, ("bar", "disc", "wedge"))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 40, "val": 5, "test": 5}
    counts = (everything(data.splits["train"]).labels >= 0).sum(1)
    assert (counts.min(), counts.max()) == (0, 6)


# classes


def test_names_of_classes_are_those_of_all_lists(root: Path) -> None:
    texts = {split: [annotation(an_object(name))] for split, name in zip(SPLITS, ("dog", "Ant", "cat"), strict=True)}
    write(root, texts)
    assert VOCDetection(root=str(root)).class_names == ("Ant", "cat", "dog")
    (root / "classes.txt").write_text("dog\ncat\nAnt\nbee\n")
    data = VOCDetection(root=str(root))
    assert data.class_names == ("dog", "cat", "Ant", "bee")
    assert [everything(source_of(data, split)).labels.item() for split in SPLITS] == [0, 2, 1]
    assert VOCDetection(root=str(root), classes=["cat", "dog", "Ant"]).class_names == ("cat", "dog", "Ant")
    write(root, {split: [annotation()] for split in SPLITS})
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match="scenes: no annotation has an object"):
        VOCDetection(root=str(root)).describe()


def test_a_label_outside_the_classes(root: Path) -> None:
    write(root, {split: [annotation(an_object("dog") + an_object("cat"))] * 2 for split in SPLITS})
    data = VOCDetection(root=str(root), classes=["dog", "bee"])
    message = r"val_0\.xml: box 2 \(cat 2 3 10 12\) is of the class 'cat'; the classes are dog, bee\. --data\.classes"
    with pytest.raises(DataError, match=message):
        data.load("val")
    (root / "Annotations" / "val_1.xml").write_text(annotation(an_object("dog")))
    skipping = VOCDetection(root=str(root), classes=["dog", "bee"], on_error="skip")
    assert names(source_of(skipping, "val")) == ["val_1"]  # the other would teach that a cat is nothing


# what may be wrong

SIZE = "<size><width>20</width><height>16</height></size>"
ANNOTATIONS = {
    "": "is no XML: no element found",
    "<annotation>": "is no XML",
    "names, and no XML": "is no XML",
    annotation(size=""): "the width in size is missing",
    annotation(size="<size><width>20</width></size>"): "the height in size is missing",
    annotation(size=SIZE.replace("20", "")): "the width in size is missing",
    annotation(size=SIZE.replace("20", "wide")): "the width in size is 'wide', expected a number",
    annotation(size=SIZE.replace("20", "0")): "its size is 0 x 16, expected the picture's width and height",
    annotation(size=SIZE.replace("16", "16.5")): r"its size is 20 x 16\.5, expected",
    annotation(size=SIZE.replace("20", "16").replace("16<", "20<", 1)): r"its size is .*val_0\.jpg has 20 x 16 pixels",
    annotation("<object><bndbox/></object>"): "object 1 has no name",
    annotation(an_object("  ")): "object 1 has no name",
    annotation(an_object() + "<object><name>cat</name></object>"): r"object 2 \(cat\): xmin is missing",
    annotation(an_object(box=(1, 2, "", 4))): r"object 1 \(cat\): xmax is missing",
    annotation(an_object(box=(1, 2, 3, "x"))): r"object 1 \(cat\): ymax is 'x', expected a number",
    annotation(an_object(box=(1, 2, "nan", 4))): r"object 1 \(cat\): xmax is nan, expected a number of pixels",
    annotation(an_object(box=(1, 2, 3, "inf"))): r"object 1 \(cat\): ymax is inf",
    '<!DOCTYPE a [<!ENTITY b "c">]>' + annotation(an_object("&b;")): "has a document type",
    '<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd">' + annotation(an_object()): "has a document type",
    annotation(an_object("&b;")): "is no XML: undefined entity",
    '<?xml version="1.0" encoding="klingon"?>' + annotation(): "is no XML",
    annotation(an_object(box=(1, 2, 3, 17))): r"box 1 \(cat 1 2 3 17\) reaches beyond its picture",
}
OTHER_SIZE = "<size><width>16</width><height>20</height></size>"


@pytest.mark.parametrize("text", ANNOTATIONS, ids=range(len(ANNOTATIONS)))
def test_bad_annotations(root: Path, text: str) -> None:
    good = annotation(an_object())
    write(root, {"train": [good], "val": [text, good], "test": [good]})
    if "val_0" in ANNOTATIONS[text]:
        (root / "Annotations" / "val_0.xml").write_text(annotation(an_object(), OTHER_SIZE))
    with pytest.raises(DataError, match=rf"val_0\.xml: {ANNOTATIONS[text]}") as caught:
        VOCDetection(root=str(root)).load("val")
    assert "\n" not in str(caught.value)
    data = VOCDetection(root=str(root), on_error="skip")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data.setup("fit")
    [message] = [str(warning.message) for warning in seen]
    assert re.search(r"VOCDetection left out 1 (scenes|boxes) that cannot be used\. .*val_0\.xml", message)
    assert names(data.splits["val"])[-1] == "val_1"


def test_an_entity_bomb_is_not_expanded(tmp_path: Path) -> None:
    levels = "".join(f'<!ENTITY e{number + 1} "{f"&e{number};" * 10}">' for number in range(12))
    text = f'<?xml version="1.0" encoding="ENC"?><!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><a>&e12;</a>'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.xml").write_bytes(text.replace("ENC", encoding).encode(encoding))
        with pytest.raises(DataError, match=r"a\.xml: has a document type, which no annotation needs; remove it"):
            read_annotation(tmp_path / "a.xml")


@pytest.mark.parametrize(("what", "folder"), [("image", "JPEGImages"), ("annotation", "Annotations")])
def test_missing_files(arguments: dict[str, Any], root: Path, what: str, folder: str) -> None:
    [path] = (root / folder).glob("picture_00003.*")
    path.unlink()
    with pytest.raises(DataError, match=rf"train\.txt, line 4: the {what} .*picture_00003\.\w+ does not exist"):
        VOCDetection(**arguments).load("train")
    data = VOCDetection(**arguments, on_error="skip")
    with pytest.warns(UserWarning, match="left out 1 scenes"):
        data.setup("fit")
    assert len(data.splits["train"]) == 18


def test_no_picture_has_a_box(root: Path) -> None:
    write(root, {"train": [annotation(an_object())], "val": [annotation()] * 3, "test": [annotation(an_object())]})
    with pytest.raises(DataError, match="scenes: none of 3 pictures of the val split has a box: nothing to compare"):
        VOCDetection(root=str(root)).load("val")


@pytest.mark.parametrize("exists", [True, False])
def test_another_layout(tmp_path: Path, exists: bool) -> None:
    root = tmp_path / "street"
    if exists:
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    problem = "it lacks ImageSets/Main" if exists else "no such folder"
    data = VOCDetection(root=str(root))
    data.prepare_data()  # nothing is downloaded into a folder of any name
    expected = rf"street: {problem}\. VOCDetection reads JPEGImages/\*\.jpg, Annotations/\*\.xml and ImageSets/Main/"
    with pytest.raises(DataError, match=expected):
        data.setup("fit")


def test_values_out_of_range() -> None:
    with pytest.raises(UsageError, match="year is 2013"):
        VOCDetection(year=2013)
    with pytest.raises(UsageError, match=r"val_fraction is 1\.0"):
        VOCDetection(val_fraction=1.0)


def test_offline_it_says_where_to_put_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"2012": {"url": "http://127.0.0.1:9/VOC.tar", "filename": "", "md5": "0" * 32, "base_dir": "x"}}
    monkeypatch.setattr(_voc, "DATASET_YEAR_DICT", table)
    root = tmp_path / "VOCdevkit"
    with pytest.raises(NoSourceError, match=re.escape(str(root / "VOC.tar"))):
        VOCDetection(root=str(root)).prepare_data()


# what is held, and predict


def test_epochs_and_processes_agree(arguments: dict[str, Any]) -> None:
    options = {**arguments, "zoom_out": 2.0, "iou_crop": True, "photometric": True, "vertical_flip": True}

    def batches(**more: Any) -> list[BoxedImages]:
        data = VOCDetection(**options, **more)
        data.setup("fit")
        loader = data.train_dataloader()
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found += list(loader)
        return found

    for one, other in zip(batches(), batches(num_workers=1, cache=0.0), strict=True):
        assert all(map(torch.equal, one, other))


def test_inputs_need_no_data_set(arguments: dict[str, Any], root: Path) -> None:
    data = VOCDetection(**{**arguments, "root": str(root / "nowhere")})
    data.inputs = [str(root / "JPEGImages" / "picture_00001.jpg")]
    data.setup("predict")
    batch = everything(data.splits["predict"])
    assert batch.original_sizes.tolist() == [[60, 80]]
    assert (batch.labels == -1).all()
