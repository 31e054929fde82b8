"""Pascal VOC's layout: splits, classes, whole scenes and crops, folds, fetching, and what may be wrong."""

import hashlib
import io
import logging
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from leyden.batches import VOID, SegmentationFacts, SegmentedImages
from leyden.download import Download, NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules import _voc
from leyden_datamodules._masks import voc_palette
from leyden_datamodules._voc import VOC_CLASSES, read_classes
from leyden_datamodules.voc_segmentation import VOCSegmentation

pytestmark = pytest.mark.usefixtures("nothing_else_here")
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scenes"


@pytest.fixture
def arguments(root: Path) -> dict[str, Any]:
    return VOCSegmentation.fabricate(root)


def write(root: Path, sizes: dict[str, list[tuple[int, int]]]) -> None:
    """A set in the layout: noise with random masks, `sizes` (width, height) by the name of the list."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, many in sizes.items():
        names = [f"{split}_{number}" for number in range(len(many))]
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, (width, height) in zip(names, many, strict=True):
            noise = random.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(noise).save(root / "JPEGImages" / f"{name}.jpg")
            mask = random.choice([*range(21), VOID], (height, width)).astype(np.uint8)
            save_mask(mask, root / "SegmentationClass" / f"{name}.png")


def save_mask(indices: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette(np.array(voc_palette(256), np.uint8).tobytes())
    picture.save(path)


def names(source: Any) -> list[str]:
    return [Path(name).stem for name in source.inputs]


def source_of(data: VOCSegmentation, split: Any) -> Any:
    return data.load(split)


def everything(source: Any) -> SegmentedImages:
    return source.__getitems__(range(len(source)))


# what is read


def test_fabricated_set(arguments: dict[str, Any]) -> None:
    data = VOCSegmentation(**arguments)
    data.prepare_data()  # nothing to fetch
    for stage in ("fit", "test"):
        data.setup(stage)
    assert VOCSegmentation.batch_type() is SegmentedImages
    assert data.facts == SegmentationFacts(3, ("ground", "disc", "box"), voc_palette(3))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 19, "val": 7, "test": 5}
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, 32, 40)
    assert (batch.images.dtype, batch.masks.dtype, batch.sizes.dtype) == (torch.uint8, torch.uint8, torch.int64)
    assert batch.sizes.tolist() == [[32, 40]] * 4
    for split in SPLITS:
        assert {0, 1, 2, VOID} == set(everything(data.splits[split]).masks.unique().tolist())


def test_colours_tell_the_classes_apart(arguments: dict[str, Any]) -> None:
    """The nearest mean colour finds them: there is something to learn."""
    data = VOCSegmentation(**arguments)
    train, test = (everything(source_of(data, split)) for split in ("train", "test"))
    pixels = train.images.permute(0, 2, 3, 1).float()
    means = torch.stack([pixels[train.masks == label].mean(0) for label in range(3)])
    nearest = torch.cdist(test.images.permute(0, 2, 3, 1).float().flatten(0, 2), means).argmin(1)
    labelled = test.masks.flatten() != VOID
    assert (nearest == test.masks.flatten())[labelled].float().mean() > 0.95


def test_whole_scenes_are_the_files(root: Path) -> None:
    sizes = [(9, 5), (4, 7), (9, 5)]
    write(root, {"train": sizes, "val": sizes, "test": sizes})
    source = source_of(VOCSegmentation(root=str(root)), "test")
    torchvisions = datasets.VOCSegmentation  # the oracle, told where our files are
    theirs = object.__new__(torchvisions)
    theirs.images, theirs.targets, theirs.transforms = source.inputs, [str(s.mask) for s in source.scenes], None
    for order in ([0, 1, 2], [2, 0], [1]):
        images, masks, found = source.__getitems__(order)
        assert found.tolist() == [[sizes[index][1], sizes[index][0]] for index in order]
        assert images.shape[2:] == masks.shape[1:] == tuple(found.max(0).values.tolist())
        for image, mask, (height, width), index in zip(images, masks, found.tolist(), order, strict=True):
            picture, target = theirs[index]
            assert np.array_equal(image[:, :height, :width].permute(1, 2, 0).numpy(), np.asarray(picture))
            assert np.array_equal(mask[:height, :width].numpy(), np.asarray(target))
            assert np.array_equal(np.asarray(source.picture(index)), np.asarray(picture))
            mask[:height, :width], image[:, :height, :width] = VOID, 0
            assert bool((mask == VOID).all())
            assert not image.any()


def test_pascal_vocs_layout(tmp_path: Path) -> None:
    """Without test.txt, val.txt is the test split, and validation is cut from train.txt."""
    devkit = tmp_path / "VOCdevkit"
    write(devkit / "VOC2012", {"train": [(6, 6)] * 20, "val": [(6, 6)] * 4})
    write(devkit / "VOC2007", {"train": [(6, 6)] * 3, "val": [(6, 6)] * 2, "test": [(6, 6)] * 5})
    data = VOCSegmentation(root=str(devkit))
    assert data.describe() == SegmentationFacts(3, VOC_CLASSES, voc_palette(21))
    assert VOC_CLASSES[:2] + VOC_CLASSES[-1:] == ("background", "aeroplane", "tvmonitor")
    parts = {split: names(source_of(data, split)) for split in SPLITS}
    assert parts["test"] == [f"val_{number}" for number in range(4)]
    assert len(parts["val"]) == 2
    assert sorted(parts["train"] + parts["val"]) == sorted(f"train_{number}" for number in range(20))
    assert names(source_of(VOCSegmentation(root=str(devkit)), "val")) == parts["val"]
    assert names(source_of(VOCSegmentation(root=str(devkit), seed=1), "val")) != parts["val"]
    assert len(source_of(VOCSegmentation(root=str(devkit), val_fraction=0.5), "val")) == 10
    assert len(source_of(VOCSegmentation(root=str(devkit), val_fraction=0.001), "val")) == 1
    assert len(source_of(VOCSegmentation(root=str(devkit), val_fraction=0.999), "train")) == 1
    older = VOCSegmentation(root=str(devkit), year=2007)
    assert [len(source_of(older, split)) for split in SPLITS] == [3, 2, 5]
    itself = VOCSegmentation(root=str(devkit / "VOC2012"))
    assert names(source_of(itself, "test")) == parts["test"]


def test_lists_are_read_as_people_write_them(arguments: dict[str, Any], root: Path) -> None:
    path = root / "ImageSets" / "Segmentation" / "test.txt"
    path.write_bytes("\ufeffscene_00 \r\n\r\n  scene_03\r\n".encode())
    assert names(source_of(VOCSegmentation(**arguments), "test")) == ["scene_00", "scene_03"]


def test_pictures_need_not_be_jpeg_nor_rgb(root: Path) -> None:
    write(root, {"train": [(6, 4)] * 4, "val": [(6, 4)], "test": [(6, 4)] * 3})
    images = root / "JPEGImages"
    for index, mode in enumerate(("L", "RGBA", "P")):
        with Image.open(images / f"test_{index}.jpg") as picture:
            converted = picture.convert(mode)
        (images / f"test_{index}.jpg").unlink()
        converted.save(images / f"test_{index}.png")
    batch = everything(source_of(VOCSegmentation(root=str(root)), "test"))
    assert batch.images.shape == (3, 3, 4, 6)
    grey = batch.images[0]
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


# classes


def test_classes_take_the_colours_of_the_masks_palette(arguments: dict[str, Any], root: Path) -> None:
    colours = ((9, 9, 9), (250, 0, 1), (3, 4, 5))
    for path in sorted((root / "SegmentationClass").glob("*.png"))[1:]:
        with Image.open(path) as mask:
            mask.load()
        mask.putpalette(np.array(colours + ((0, 0, 0),) * 253, np.uint8).tobytes())
        mask.save(path)
    first = root / "SegmentationClass" / "scene_00.png"
    first.write_bytes(b"")  # said when it is read; the next one has the colours
    assert VOCSegmentation(**arguments).describe().palette == colours
    with Image.open(path) as mask:
        Image.fromarray(np.array((*colours, *((0, 0, 0),) * 253), np.uint8)[np.asarray(mask)]).save(first)
    assert VOCSegmentation(**arguments).describe().palette == colours
    with Image.open(path) as mask:  # a mask in colours is read by those of the others
        expected = np.asarray(mask)
    small = {**arguments, "on_error": "skip"}
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("scene_00\n")
    with Image.open(root / "JPEGImages" / f"{path.stem}.jpg") as picture:
        picture.save(root / "JPEGImages" / "scene_00.jpg")
    assert np.array_equal(everything(source_of(VOCSegmentation(**small), "test")).masks[0].numpy(), expected)


def test_grey_masks_take_vocs_colours(arguments: dict[str, Any], root: Path) -> None:
    for path in (root / "SegmentationClass").glob("*.png"):
        with Image.open(path) as mask:
            Image.fromarray(np.asarray(mask)).save(path)
    assert VOCSegmentation(**arguments).describe().palette == voc_palette(3)


def test_classes_with_colours(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("traffic light 2  255 0 0\n\ncar\t0 0 255\n")
    assert read_classes(file) == (("traffic light 2", "car"), ((255, 0, 0), (0, 0, 255)))
    file.write_text("level 1\nlevel 2\n")
    assert read_classes(file) == (("level 1", "level 2"), ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"classes\.txt: names 0 classes; expected 1 to 255"),
        ("\n".join(map(str, range(256))), "names 256 classes"),
        ("a\n\nb\na\n", r"classes\.txt, line 4: a again, as in .*line 1"),
        ("a 1 2 3\nb 1 2 3\n", r"line 2: \(1, 2, 3\) again"),
        ("a 1 2 3\nb\n", "line 2: expected `name red green blue`"),
        ("a 1 2 3\nb 1 2 256\n", "line 2: expected `name red green blue`, from 0 to 255"),
    ],
)
def test_bad_classes(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.txt")


# training


def test_a_crop_is_filled_up_with_void(root: Path) -> None:
    write(root, {"train": [(30, 20), (50, 40)], "val": [(9, 9)], "test": [(9, 9)]})
    for path in (root / "SegmentationClass").glob("train_*.png"):
        with Image.open(path) as mask:
            save_mask(np.ones((mask.height, mask.width)), path)
    data = VOCSegmentation(root=str(root), crop_size=(32, 40))
    images, masks, sizes = everything(source_of(data, "train"))
    assert sizes.tolist() == [[32, 40]] * 2
    labelled = masks == 1
    assert labelled.sum((1, 2)).tolist() == [20 * 30, 32 * 40]  # the small one is there as a whole
    assert bool((masks[~labelled] == VOID).all())
    assert images.permute(0, 2, 3, 1)[~labelled].unique(dim=0).tolist() == [[124, 116, 104]]
    normalized = data.transform(SegmentedImages(images, masks, sizes), training=True).images
    assert normalized.permute(0, 2, 3, 1)[~labelled].abs().max() < 0.01


def test_a_mask_is_resized_to_the_middles_of_its_images_pixels(root: Path) -> None:
    """Image and mask hold their own columns; at a third of the size a pixel's middle is that of three."""
    write(root, {"train": [(150, 90)], "val": [(9, 9)], "test": [(9, 9)]})
    (root / "classes.txt").write_text("\n".join(f"column {number}" for number in range(150)))
    columns = np.broadcast_to(np.arange(150, dtype=np.uint8), (90, 150))
    save_mask(columns, root / "SegmentationClass" / "train_0.png")
    (root / "JPEGImages" / "train_0.jpg").unlink()
    Image.fromarray(columns).save(root / "JPEGImages" / "train_0.png")
    source = source_of(VOCSegmentation(root=str(root), crop_size=(20, 40), scale_jitter=(1 / 3, 1 / 3)), "train")
    for epoch in range(8):
        source.set_epoch(epoch)
        images, masks, _ = source.__getitems__([0])
        assert torch.equal(images[0, 0, :, 1:-1], masks[0, :, 1:-1])
        assert set(masks[0, 0].int().diff().tolist()) in ({3}, {-3})


def test_augmentation_is_repeatable(arguments: dict[str, Any]) -> None:
    options: dict[str, Any] = {**arguments, "scale_jitter": (0.5, 2.0), "colour_jitter": 0.5}

    def source(**more: Any) -> Any:
        return source_of(VOCSegmentation(**{**options, **more}), "train")

    first = source()
    state = torch.get_rng_state()
    batch = everything(first)
    assert torch.equal(torch.get_rng_state(), state)  # training's own randomness is left alone
    for found in (everything(first), everything(source()), everything(source(cache=0.0))):
        assert all(map(torch.equal, batch, found))
    alone = first.__getitems__([7, 2])  # whatever else is in the batch
    assert torch.equal(alone.images, batch.images[[7, 2]])
    assert torch.equal(alone.masks, batch.masks[[7, 2]])
    first.set_epoch(1)
    other = everything(first)
    changed = (other.images != batch.images).flatten(1).any(1)
    assert changed.all()
    assert (everything(source(seed=5)).images != batch.images).flatten(1).any(1).all()
    first.set_epoch(0)
    assert torch.equal(everything(first).images, batch.images)


def test_workers_that_live_on_are_told_the_epoch(arguments: dict[str, Any]) -> None:
    def epochs(**more: Any) -> list[SegmentedImages]:
        data = VOCSegmentation(**arguments, **more)
        data.setup("fit")
        loader = data.train_dataloader()
        batches = []
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            batches += list(loader)
        return batches

    plain, worked = epochs(), epochs(num_workers=1)
    assert len(plain) == len(worked) == 15
    for one, other in zip(plain, worked, strict=True):
        assert all(map(torch.equal, one, other))
    # an item of two epochs: the same picture, another crop
    assert not torch.equal(plain[0].images, plain[5].images)


def test_small_pictures_are_dropped_when_asked(root: Path) -> None:
    sizes = [(30, 20), (31, 20), (30, 19), (29, 20), (60, 60)]
    write(root, {"train": sizes, "val": sizes, "test": sizes})
    options: dict[str, Any] = {"root": str(root), "crop_size": (20, 30)}
    assert len(source_of(VOCSegmentation(**options), "train")) == 5
    data = VOCSegmentation(**options, drop_small=True)
    assert names(source_of(data, "train")) == ["train_0", "train_1", "train_4"]
    assert [len(source_of(data, split)) for split in ("val", "test")] == [5, 5]
    with pytest.raises(DataError, match="all 5 training images are smaller than the crop, 61 x 30"):
        VOCSegmentation(root=str(root), crop_size=(61, 30), drop_small=True).load("train")


@pytest.mark.parametrize("training", [False, True])
def test_transform(root: Path, training: bool) -> None:
    write(root, {"train": [(9, 9)], "val": [(9, 9)], "test": [(9, 5), (4, 7)]})
    data = VOCSegmentation(root=str(root))
    batch = everything(source_of(data, "test"))
    found = data.transform(batch, training=training)
    assert found.images.dtype == torch.float32
    assert torch.equal(found.masks, batch.masks)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (data.mean, data.std))
    for image, raw, (height, width) in zip(found.images, batch.images, batch.sizes.tolist(), strict=True):
        expected = (raw.double() / 255 - mean) / std
        inside = (slice(None), slice(height), slice(width))
        torch.testing.assert_close(image[inside].double(), expected[inside], atol=1e-5, rtol=1e-5)
        if not training:
            image[inside] = 0
            assert not image.any()


# folds


@pytest.mark.parametrize("official_val", [True, False])
def test_folds(arguments: dict[str, Any], root: Path, official_val: bool) -> None:
    if not official_val:
        (root / "ImageSets" / "Segmentation" / "test.txt").unlink()
    validated: list[str] = []
    for number in (1, 2, 3):
        data = VOCSegmentation(**arguments, fold=f"{number}/3")
        data.setup("fit")
        train, val = data.splits["train"], data.splits["val"]
        assert everything(train).images.shape[2:] == (32, 40)  # cropped, wherever an item comes from
        assert set(map(tuple, everything(val).sizes.tolist())) == {(48, 36), (40, 56)}  # whole
        assert not set(names(train)) & set(names(val))
        assert len(train) + len(val) == (26 if official_val else 19)
        validated += names(val)
    assert len(set(validated)) == len(validated) == (26 if official_val else 19)
    data = VOCSegmentation(**arguments, fold="all")
    data.setup("fit")
    assert len(data.splits["train"]) == (26 if official_val else 19)


# predict


def test_inputs_of_any_size(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in {"b.png": (5, 3), "a.jpg": (9, 20)}.items():
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    Image.fromarray(random.integers(0, 256, (4, 4), np.uint8)).save(tmp_path / "grey.png")
    data = VOCSegmentation(root=str(tmp_path / "nowhere"))
    data.inputs = [str(tmp_path / "grey.png"), str(folder), str(folder / "b.png")]
    data.setup("predict")
    source: Any = data.splits["predict"]
    assert source.inputs == [str(tmp_path / "grey.png"), str(folder / "a.jpg"), str(folder / "b.png")]
    batch = everything(source)
    assert batch.sizes.tolist() == [[4, 4], [9, 20], [5, 3]]
    assert bool((batch.masks == VOID).all())
    assert np.array_equal(np.asarray(source.picture(2)), batch.images[2, :, :5, :3].permute(1, 2, 0).numpy())
    with pytest.raises(DataError, match="nothing to predict"):
        data.load_inputs([])


# what may be wrong


def damage(root: Path, what: str) -> None:
    image, mask = root / "JPEGImages" / "scene_02.jpg", root / "SegmentationClass" / "scene_02.png"
    if what == "no image":
        image.unlink()
    elif what == "no mask":
        mask.unlink()
    elif what == "mask of another size":
        save_mask(np.zeros((48, 35)), mask)
    elif what == "mask with a class too many":
        indices = np.zeros((48, 36))
        indices[40, 3] = 3
        save_mask(indices, mask)
    elif what == "mask with an unknown colour":
        picture = Image.new("RGB", (36, 48))
        picture.putpixel((5, 6), (1, 2, 3))
        picture.save(mask)
    elif what == "image cut off":
        image.write_bytes(image.read_bytes()[:500])


DAMAGES = {
    "no image": r"train\.txt, line 3: the image .*scene_02\.jpg does not exist",
    "no mask": r"train\.txt, line 3: the mask .*scene_02\.png does not exist",
    "mask of another size": r"scene_02\.png: 35 x 48 pixels, but its image .*scene_02\.jpg has 36 x 48",
    "mask with a class too many": r"scene_02\.png: value 3 at row 40, column 3 .*expected 0 to 2, the 3 classes of "
    r".*classes\.txt, or 255",
    "mask with an unknown colour": r"scene_02\.png: colour \(1, 2, 3\) at row 6, column 5 .*the 3 classes of",
    "image cut off": r"scene_02\.jpg: cannot be read",
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("cache", [0.0, 2.0])
def test_damages(arguments: dict[str, Any], root: Path, what: str, cache: float) -> None:
    damage(root, what)
    with pytest.raises(DataError, match=DAMAGES[what]) as caught:
        everything(source_of(VOCSegmentation(**arguments, cache=cache), "train"))
    assert "\n" not in str(caught.value)
    data = VOCSegmentation(**arguments, cache=cache, on_error="skip")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data.setup("fit")
    [message] = [str(warning.message) for warning in seen]
    assert "left out 1 scenes" in message
    assert "scene_02" in message
    assert len(data.splits["train"]) == 18
    assert "scene_02" not in names(data.splits["train"])
    everything(data.splits["train"])


def test_a_worker_says_it_in_one_line(arguments: dict[str, Any], root: Path) -> None:
    damage(root, "mask with a class too many")
    data = VOCSegmentation(**arguments, cache=0, num_workers=1)
    data.setup("fit")
    with pytest.raises(DataError) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(str(root / "SegmentationClass" / "scene_02.png"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("cache", [0.0, 2.0])
def test_void_alone(arguments: dict[str, Any], root: Path, cache: float) -> None:
    masks = sorted((root / "SegmentationClass").glob("*.png"))
    for path in masks[:18]:
        with Image.open(path) as mask:
            save_mask(np.full((mask.height, mask.width), VOID), path)
    data = VOCSegmentation(**arguments, cache=cache)
    assert len(source_of(data, "train")) == 19  # some scenes without a class are fine
    with Image.open(masks[18]) as mask:
        save_mask(np.full((mask.height, mask.width), VOID), masks[18])
    with pytest.raises(DataError, match="all pixels of all 19 masks of the train split are void: nothing to learn"):
        VOCSegmentation(**arguments, cache=cache).load("train")
    assert len(source_of(VOCSegmentation(**arguments, cache=cache), "val")) == 7
    for path in masks[19:26]:
        with Image.open(path) as mask:
            save_mask(np.full((mask.height, mask.width), VOID), path)
    with pytest.raises(DataError, match="all 7 masks of the val split are void: nothing to compare with"):
        VOCSegmentation(**arguments, cache=cache).load("val")


def test_layouts_without_names_of_classes_are_taken_for_voc(
    arguments: dict[str, Any], root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "classes.txt").unlink()
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    with caplog.at_level("INFO", "leyden"):
        assert len(VOCSegmentation(**arguments).describe().class_names) == 21  # type: ignore[attr-defined]
    assert f"{root} has no classes.txt" in caplog.text


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "lists no images"), (b" \n\n", "lists no images"), (b"a\xff", "the byte .* not UTF-8")],
)
def test_bad_lists(arguments: dict[str, Any], root: Path, split: Any, content: bytes, message: str) -> None:
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"{split}\.txt.*{message}"):
        VOCSegmentation(**arguments).load(split)


def test_missing_lists(arguments: dict[str, Any], root: Path) -> None:
    lists = root / "ImageSets" / "Segmentation"
    (lists / "val.txt").unlink()  # then validation is cut from train.txt
    assert [len(source_of(VOCSegmentation(**arguments), split)) for split in SPLITS] == [17, 2, 5]
    (lists / "test.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt: cannot be read \(No such file"):
        VOCSegmentation(**arguments).load("test")
    (lists / "train.txt").write_text("scene_00\n")
    with pytest.raises(DataError, match=r"train\.txt, line 1: one image is too few"):
        VOCSegmentation(**arguments).load("train")
    (lists / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt: cannot be read"):
        VOCSegmentation(**arguments).load("train")


@pytest.mark.parametrize("exists", [True, False])
def test_another_layout(tmp_path: Path, exists: bool) -> None:
    root = tmp_path / "street"
    if exists:
        root.mkdir()
    problem = "it lacks ImageSets/Segmentation" if exists else "no such folder"
    data = VOCSegmentation(root=str(root))
    data.prepare_data()  # nothing is downloaded into a folder of any name
    with pytest.raises(DataError, match=rf"street: {problem}\. VOCSegmentation reads .*folder called VOCdevkit"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"year": 2013}, "year is 2013; Pascal VOC is of 2007 to 2012"),
        ({"val_fraction": 0.0}, r"val_fraction is 0\.0"),
        ({"val_fraction": 1.0}, r"val_fraction is 1\.0"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VOCSegmentation(**bad)


# fetching


def archive_of(folder: Path, base: str) -> bytes:
    """A tar as VOC's, with `folder` as its `base`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(folder, base)
    return content.getvalue()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Torchvision's table with small archives; a fetched file is one of them. The bytes, by their address."""
    offered: dict[str, bytes] = {}
    table: dict[str, dict[str, str]] = {}
    # 2012, that torchvision keeps in a folder of its own, and a year whose test split comes apart
    for key, base, lists in (
        ("2012", "VOCdevkit/VOC2012", ("train", "val")),
        ("2011", "TrainVal/VOCdevkit/VOC2011", ("train", "val")),
        ("2007", "VOCdevkit/VOC2007", ("train", "val")),
        ("2007-test", "VOCdevkit/VOC2007", ("test",)),
    ):
        folder = tmp_path / "made" / key
        write(folder, {name: [(8, 6)] * 3 for name in lists})
        url = f"http://voc/{key}/VOC{key}.tar"
        offered[url] = archive_of(folder, base)
        md5 = hashlib.md5(offered[url]).hexdigest()
        table[key] = {"url": url, "filename": "another.tar", "md5": md5, "base_dir": base}
    monkeypatch.setattr(_voc, "DATASET_YEAR_DICT", table)

    def fetched(download: Download, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / download.name
        path.write_bytes(offered[download.urls[0]])
        assert download.mismatch(path) is None
        return path

    monkeypatch.setattr(_voc, "fetch", fetched)
    return offered


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize(("year", "count"), [(2012, [2, 1, 3]), (2011, [2, 1, 3]), (2007, [3, 3, 3])])
@pytest.mark.parametrize("given", [True, False])
def test_voc_is_fetched_where_it_is_missing(tmp_path: Path, year: int, count: list[int], given: bool) -> None:
    root = tmp_path / "elsewhere" / "VOCdevkit"
    data = VOCSegmentation(year=year, root=str(root) if given else None)
    data.prepare_data()
    assert [len(source_of(data, split)) for split in SPLITS] == count
    found = root if given else Path("data", "VOCdevkit")
    assert data.path() == found
    left = {path.name for path in found.iterdir()}
    assert left == {f"VOC{year}", f"VOC{year}.tar"} | ({"VOC2007-test.tar"} if year == 2007 else set())
    for path in found.glob("*.tar"):
        path.unlink()
    data.prepare_data()  # it is there: nothing is fetched again
    assert not list(found.glob("*.tar"))


def test_the_table_is_torchvisions() -> None:
    part = _voc.DATASET_YEAR_DICT["2012"]
    download = _voc._download(part)
    assert download == Download("VOCtrainval_11-May-2012.tar", (part["url"],), "md5:6cd6e144f989b92b3379bac3b3de84fd")
    older = _voc._download(_voc.DATASET_YEAR_DICT["2008"])
    assert older.name == "VOCtrainval_14-Jul-2008.tar"  # not what torchvision calls it


def test_an_unfinished_folder_is_not_written_over(tmp_path: Path, archives: dict[str, bytes]) -> None:
    (tmp_path / "VOCdevkit" / "VOC2012" / "Annotations").mkdir(parents=True)
    data = VOCSegmentation(root=str(tmp_path / "VOCdevkit"))
    data.prepare_data()
    assert [path.name for path in (tmp_path / "VOCdevkit").iterdir()] == ["VOC2012"]
    with pytest.raises(DataError, match="VOCdevkit: it lacks ImageSets/Segmentation"):
        data.setup("fit")


def test_an_archive_of_something_else(tmp_path: Path, archives: dict[str, bytes]) -> None:
    url = "http://voc/2012/VOC2012.tar"
    archives[url] = archive_of(tmp_path / "made" / "2012", "other")
    _voc.DATASET_YEAR_DICT["2012"]["md5"] = hashlib.md5(archives[url]).hexdigest()
    data = VOCSegmentation(root=str(tmp_path / "VOCdevkit"))
    with pytest.raises(DataError, match=r"VOC2012\.tar cannot be unpacked to .*VOC2012: No such file"):
        data.prepare_data()
    assert [path.name for path in (tmp_path / "VOCdevkit").iterdir()] == ["VOC2012.tar"]


def test_offline_it_says_where_to_put_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"2012": {"url": "http://127.0.0.1:9/VOC.tar", "filename": "", "md5": "0" * 32, "base_dir": "x"}}
    monkeypatch.setattr(_voc, "DATASET_YEAR_DICT", table)
    root = tmp_path / "VOCdevkit"
    with pytest.raises(NoSourceError) as caught:
        VOCSegmentation(root=str(root)).prepare_data()
    assert "http://127.0.0.1:9/VOC.tar" in str(caught.value)
    assert str(root / "VOC.tar") in str(caught.value)
    assert list(root.iterdir()) == []
