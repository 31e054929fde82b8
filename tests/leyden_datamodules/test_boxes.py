"""Boxes stay tight around their things, no picture is distorted, and randomness follows from seed, epoch and item."""

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from leyden.batches import BoxedImages, DetectionFacts
from leyden.errors import DataError, UsageError
from leyden_datamodules._boxes import BoxAugmentation, BoxData, BoxedScene, BoxedScenes, Things, fit, fitted_size

ON_GROUND = (40, 60, 20)
COLOURS = ((250, 250, 30), (30, 250, 250))
OFF: dict[str, Any] = {
    "flip": False,
    "vertical_flip": False,
    "zoom_out": 0.0,
    "iou_crop": False,
    "photometric": False,
    "blank": (0.4, 0.6, 0.2),
    "seed": 0,
}
MOVES: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "vertical_flip": {"vertical_flip": True},
    "zoom_out": {"zoom_out": 3.0},
    "iou_crop": {"iou_crop": True},
    "all": {"flip": True, "vertical_flip": True, "zoom_out": 2.0, "iou_crop": True},
}


class PlainData(BoxData):
    """Scenes are made from scenes: `data.listed` is what a test gives it."""

    fabricate = None  # type: ignore[assignment]
    folder = "plain"
    class_names = ("yellow", "cyan")
    given: Sequence[BoxedScene] = ()

    def listed(self, split: Any) -> Sequence[BoxedScene]:
        return self.given

    def scene(self, listed: BoxedScene) -> BoxedScene:
        return replace(listed, places=tuple(f"{listed.image}: box {number}" for number in range(1, 9)))


def source_of(given: Sequence[BoxedScene], split: Any = "train", **options: Any) -> Any:
    data = PlainData(**options)
    data.given = given
    return data.load(split)


def things_of(boxes: Sequence[Sequence[float]], labels: Sequence[int] | None = None) -> Things:
    count = len(boxes)
    chosen = torch.tensor([0] * count if labels is None else labels, dtype=torch.int64)
    return Things(torch.tensor(boxes, dtype=torch.float32).view(-1, 4), chosen, torch.zeros(count, dtype=torch.bool))


def painted(path: Path, size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> BoxedScene:
    """A picture of (height, width) with a filled rectangle for each box, each of a colour of its own."""
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = ON_GROUND
    for (left, top, right, bottom), colour in zip(boxes, COLOURS, strict=False):
        pixels[top:bottom, left:right] = colour
    Image.fromarray(pixels).save(path)
    return BoxedScene(path, size, things_of(boxes, list(range(len(boxes)))))


@pytest.fixture
def scenes(tmp_path: Path) -> list[BoxedScene]:
    """Six pictures of three sizes with two rectangles, the last with one of them."""
    boxes = [(20, 30, 52, 60), (70, 10, 98, 50)]
    sizes = [(96, 128), (128, 112), (80, 104)] * 2
    found = [painted(tmp_path / f"{index}.png", size, boxes) for index, size in enumerate(sizes)]
    return [*found[:-1], painted(tmp_path / "5.png", sizes[-1], boxes[1:])]


def everything(source: Any) -> BoxedImages:
    batch: BoxedImages = source.__getitems__(range(len(source)))
    return batch


def colour_box(image: Tensor, colour: Sequence[int]) -> tuple[list[int], list[int]]:
    """The boxes of the pixels that are nearly, and of those that are at all, of a bright colour on dark ground.

    Between both is where an edge, blurred by resizing, can be.
    """
    ground, target = (torch.tensor(values).view(3, 1, 1).float() for values in (ON_GROUND, colour))
    along = ((image.float() - ground) * (target - ground)).sum(0) / ((target - ground) ** 2).sum()
    apart = ((image.float() - ground) - along * (target - ground)).abs().sum(0)  # 0 on the way from ground to colour
    inner, outer = ((along > limit) & (apart < 60) for limit in (0.9, 0.1))
    return _extent(inner), _extent(outer)


def _extent(mask: Tensor) -> list[int]:
    rows, columns = mask.nonzero().unbind(1)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


# fitting


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), room=st.tuples(st.integers(1, 700), st.integers(1, 700))
)
def test_a_fitted_size_is_the_largest_of_the_same_shape(size: tuple[int, int], room: tuple[int, int]) -> None:
    height, width = fitted_size(size, room)
    assert 1 <= height <= room[0]
    assert 1 <= width <= room[1]
    assert height == room[0] or width == room[1]
    # one factor for both sides, up to the rounding of each to a pixel
    factors = [(side - 0.5, side + 0.5) for side in (height, width)]
    lows, highs = zip(*((low / old, high / old) for (low, high), old in zip(factors, size, strict=True)), strict=True)
    assert max(lows) <= min(highs) or min(height, width) == 1


def test_a_picture_that_fits_is_not_resized() -> None:
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8)
    assert fit(image, (40, 50)) is image
    assert fit(image, (80, 60)).shape == (3, 80, 60)


@pytest.mark.parametrize("image_size", [(64, 64), (48, 128), (200, 90), (256, 256)])
def test_whole_pictures_lie_in_the_corner(scenes: list[BoxedScene], image_size: tuple[int, int]) -> None:
    source = source_of(scenes, "val", image_size=image_size)
    data = PlainData(image_size=image_size)
    batch = everything(source)
    assert batch.images.shape == (6, 3, *image_size)
    assert [part.dtype for part in batch] == [torch.uint8, torch.float32, torch.int64, torch.bool, *[torch.int64] * 2]
    assert batch.original_sizes.tolist() == [list(scene.size) for scene in scenes]
    assert batch.labels.tolist() == [[0, 1]] * 5 + [[0, -1]]
    assert batch.boxes[5, 1].tolist() == [0] * 4
    scales = batch.sizes / batch.original_sizes
    limit = 0.5 / batch.original_sizes.min()
    assert (scales[:, 0] - scales[:, 1]).abs().max() <= 2 * limit  # not distorted
    images = data.transform(batch, training=False).images
    assert images.dtype == torch.float32
    for image, raw, (height, width), scene in zip(images, batch.images, batch.sizes.tolist(), scenes, strict=True):
        corner = (slice(None), slice(height), slice(width))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
        torch.testing.assert_close(image[corner], (raw[corner] / 255 - mean) / std, atol=1e-5, rtol=1e-5)
        assert image[corner].abs().min() > 0 or image_size[0] > 1
        for rest in (raw.clone(), image.clone()):
            rest[corner] = 0
            assert not rest.any()
        with Image.open(scene.image) as picture:
            expected = picture.resize((width, height), Image.Resampling.BILINEAR)
        difference = raw[corner].permute(1, 2, 0).int().numpy() - np.asarray(expected).astype(int)
        assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("image_size", [(64, 64), (96, 160), (256, 256)])
def test_boxes_are_resized_with_their_things(scenes: list[BoxedScene], image_size: tuple[int, int]) -> None:
    batch = everything(source_of(scenes, "val", image_size=image_size))
    for scene, boxes, size in zip(scenes, batch.boxes, batch.sizes.tolist(), strict=True):
        down, across = (new / old for new, old in zip(size, scene.size, strict=True))
        expected = scene.things.boxes.double() * torch.tensor([across, down, across, down], dtype=torch.float64)
        torch.testing.assert_close(boxes[: len(expected)].double(), expected, atol=1e-4, rtol=1e-6)
    assert_tight(batch, 5)


def assert_tight(batch: BoxedImages, least: int) -> None:
    """Each box is around the pixels of its colour, to a pixel. least: so many boxes at least were looked at."""
    looked_at = 0
    for image, boxes, labels in zip(batch.images, batch.boxes, batch.labels, strict=True):
        there = labels >= 0
        assert there.tolist() == sorted(there.tolist(), reverse=True)  # things come first
        for box, label in zip(boxes[there].tolist(), labels[there].tolist(), strict=True):
            if min(box[2] - box[0], box[3] - box[1]) < 4:
                continue  # too small to have pixels of its own colour
            inner, outer = colour_box(image, COLOURS[label])
            for side in range(4):
                low, high = sorted((inner[side], outer[side]))
                assert low - 1 <= box[side] <= high + 1
            looked_at += 1
    assert looked_at >= least


# augmenting


@pytest.mark.parametrize("moves", MOVES)
def test_augmented_boxes_are_around_their_things(scenes: list[BoxedScene], moves: str) -> None:
    source = BoxedScenes(scenes[:5], (128, 128), BoxAugmentation(**{**OFF, **MOVES[moves]}))
    changed = 0
    for epoch in range(20):
        source.set_epoch(epoch)
        batch = everything(source)
        assert_tight(batch, 5)
        sizes = batch.sizes[:, None, [1, 0, 1, 0]]
        assert bool(((batch.boxes >= 0) & (batch.boxes <= sizes)).all())
        plain = everything(BoxedScenes(scenes[:5], (128, 128)))
        changed += sum(not torch.equal(one, other) for one, other in zip(batch.images, plain.images, strict=True))
    assert 30 <= changed <= 100


def test_labels_and_difficult_go_with_their_boxes(scenes: list[BoxedScene]) -> None:
    """Cyan things are difficult; a crop may leave either out."""
    hard = [replace(scene, things=scene.things._replace(difficult=scene.things.labels == 1)) for scene in scenes[:5]]
    source = BoxedScenes(hard, (128, 128), BoxAugmentation(**{**OFF, **MOVES["all"]}))
    seen = set()
    for epoch in range(20):
        source.set_epoch(epoch)
        batch = everything(source)
        assert torch.equal(batch.difficult, batch.labels == 1)
        seen |= {tuple(labels) for labels in batch.labels.tolist()}
    assert seen >= {(0, 1), (0, -1), (1, -1)}


def test_half_are_mirrored(scenes: list[BoxedScene]) -> None:
    source = BoxedScenes(scenes[:1], (96, 128), BoxAugmentation(**{**OFF, "flip": True}))
    lefts = []
    for epoch in range(300):
        source.set_epoch(epoch)
        lefts.append(source.__getitems__([0]).boxes[0, 0, 0].item())
    assert set(lefts) == {20, 128 - 52}
    assert lefts.count(20) == pytest.approx(150, abs=40)


def test_zoomed_out_pictures_lie_on_the_mean_colour(scenes: list[BoxedScene]) -> None:
    rules = BoxAugmentation(**{**OFF, "zoom_out": 4.0})
    source = BoxedScenes(scenes[:1], (96, 128), rules)
    widths = []
    for epoch in range(100):
        source.set_epoch(epoch)
        batch = source.__getitems__([0])
        box = batch.boxes[0, 0]
        widths.append((box[2] - box[0]).item())
        if widths[-1] < 12:  # then a corner at least is blank
            corners = batch.images[0][:, [0, 0, -1, -1], [0, -1, 0, -1]].T
            assert [102, 153, 51] in corners.tolist()
    assert widths.count(32) == pytest.approx(50, abs=20)  # half are as they were
    assert 32 / 4 - 0.2 <= min(widths) < 32 / 3


def test_colours_change_and_boxes_do_not(scenes: list[BoxedScene]) -> None:
    plain, coloured = (
        everything(BoxedScenes(scenes, (64, 64), BoxAugmentation(**{**OFF, "photometric": on}))) for on in (False, True)
    )
    assert torch.equal(plain.boxes, coloured.boxes)
    assert (plain.images != coloured.images).flatten(1).any(1).sum() >= 5
    for batch in (plain, coloured):
        assert not batch.images[0, :, int(batch.sizes[0, 0]) :].any()  # what is left over stays 0


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (4, 4)])
def test_pictures_of_no_size_to_speak_of(tmp_path: Path, size: tuple[int, int]) -> None:
    scene = painted(tmp_path / "small.png", size, [(0, 0, size[1], size[0])])
    source = source_of([scene], image_size=(32, 32), iou_crop=True, zoom_out=2.0, photometric=True)
    for epoch in range(20):
        source.set_epoch(epoch)
        batch = everything(source)
        assert batch.images.shape == (1, 3, 32, 32)
        assert batch.labels.tolist() == [[0]]
    assert everything(source_of([scene], "val", image_size=(32, 32))).sizes.tolist() == [
        list(fitted_size(size, (32, 32)))
    ]


def test_a_picture_without_a_thing_is_background(tmp_path: Path, scenes: list[BoxedScene]) -> None:
    empty = painted(tmp_path / "empty.png", (60, 50), [])
    for options in ({}, {"iou_crop": True, "zoom_out": 2.0}):
        batch = everything(source_of([scenes[0], empty], image_size=(64, 64), **options))
        assert batch.labels[1].tolist() == [-1] * batch.labels.shape[1]
        assert not batch.boxes[1].any()
        alone = source_of([scenes[0], empty], image_size=(64, 64), **options).__getitems__([1])
        assert alone.boxes.shape == (1, 1, 4)


# what randomness follows from


def test_randomness_follows_from_seed_epoch_and_item(scenes: list[BoxedScene]) -> None:
    options: dict[str, Any] = {"image_size": (64, 64), "zoom_out": 3.0, "iou_crop": True, "photometric": True}

    def source(**more: Any) -> Any:
        return source_of(scenes, **{**options, **more})

    first = source()
    state = torch.get_rng_state()
    batch = everything(first)
    assert torch.equal(torch.get_rng_state(), state)  # training's own randomness is left alone
    torch.manual_seed(99)
    for found in (everything(first), everything(source()), everything(source(cache=0.0))):
        assert all(map(torch.equal, batch, found))
    alone = first.__getitems__([4, 2])  # whatever else is in the batch
    assert torch.equal(alone.images, batch.images[[4, 2]])
    first.set_epoch(1)
    assert (everything(first).images != batch.images).flatten(1).any(1).all()
    assert (everything(source(seed=5)).images != batch.images).flatten(1).any(1).all()
    first.set_epoch(0)
    assert torch.equal(everything(first).images, batch.images)
    again = pickle.loads(pickle.dumps(BoxedScenes(scenes, (64, 64), first.augmentation)))  # as workers get it
    assert torch.equal(everything(again).images, batch.images)


def test_the_generator_is_restored_after_an_error() -> None:
    state = torch.get_rng_state()

    def stumble() -> None:
        with BoxAugmentation(**OFF).randomness(0, 0):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        stumble()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"zoom_out": 3.0, "iou_crop": True}], ids=["flip", "all"])
def test_workers_and_resuming_change_nothing(scenes: list[BoxedScene], options: dict[str, Any]) -> None:
    def loader(**more: Any) -> Any:
        data = PlainData(image_size=(64, 64), batch_size=2, **options, **more)
        data.given = scenes
        data.setup("fit")
        return data.train_dataloader()

    def epochs(made: Any, first: int = 0) -> list[BoxedImages]:
        batches = []
        for epoch in range(first, 3):
            made.sampler.set_epoch(epoch)
            batches += list(made)
        return batches

    plain, worked = epochs(loader()), epochs(loader(num_workers=2, cache=0.0))
    assert len(plain) == len(worked) == 9
    for one, other in zip(plain, worked, strict=True):
        assert all(map(torch.equal, one, other))
    resumed = loader()
    resumed.load_state_dict({"batches_given": 2, "batch_size": 2, "processes": 1})
    for one, other in zip(plain[5:], epochs(resumed, first=1), strict=True):
        assert all(map(torch.equal, one, other))


def test_augmentation_follows_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert PlainData(seed=3).augmentation().seed == 3
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert PlainData(seed=3).augmentation().seed == 11


# what is held


def test_what_is_held_is_as_small_as_it_may_be(scenes: list[BoxedScene]) -> None:
    fitted = source_of(scenes, image_size=(64, 64))
    assert {tuple(shape) for shape in fitted.held.shapes} == {
        (3, *fitted_size(scene.size, (64, 64))) for scene in scenes
    }
    originals = source_of(scenes, image_size=(64, 64), iou_crop=True)
    assert [tuple(shape) for shape in originals.held.shapes] == [(3, *scene.size) for scene in scenes]
    assert source_of(scenes, cache=0.0).held is None
    for options in ({}, {"iou_crop": True}):
        one, other = (everything(source_of(scenes, cache=cache, **options)) for cache in (0.0, 2.0))
        assert all(map(torch.equal, one, other))


def test_batches_are_no_views_of_what_is_held(scenes: list[BoxedScene]) -> None:
    source = source_of(scenes, "val", image_size=(64, 64))
    before = everything(source)
    everything(source).images.fill_(7)
    assert torch.equal(everything(source).images, before.images)


# bad boxes

BAD = {
    "beyond the left": ((-1, 5, 20, 20), "reaches beyond its picture, which is 128 x 96 pixels", (0, 5, 20, 20)),
    "beyond the right": ((5, 5, 129, 20), "reaches beyond its picture", (5, 5, 128, 20)),
    "beyond the bottom": ((5, 5, 20, 96.5), "reaches beyond its picture", (5, 5, 20, 96)),
    "outside": ((130, 5, 140, 20), "reaches beyond its picture", None),
    "no width": ((5, 5, 5, 20), "has no area", None),
    "no height": ((5, 20, 9, 20), "has no area", None),
    "a point": ((5, 5, 5, 5), "has no area", None),
    "exchanged across": ((20, 5, 5, 20), "has its corners exchanged", (5, 5, 20, 20)),
    "exchanged down": ((5, 20, 20, 5), "has its corners exchanged", (5, 5, 20, 20)),
    "exchanged and beyond": ((200, 20, 5, 5), "has its corners exchanged", (5, 5, 128, 20)),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_boxes(scenes: list[BoxedScene], what: str) -> None:
    box, problem, clipped = BAD[what]
    good = [20.0, 30.0, 52.0, 60.0]
    bad = replace(scenes[0], things=things_of([good, box], [0, 1]))
    with pytest.raises(DataError) as caught:
        source_of([scenes[1], bad], "val")
    message = str(caught.value)
    assert message.startswith(f"{bad.image}: box 2 {problem}")
    assert "on_error skip leaves such boxes out; clip" in message
    assert "\n" not in message
    for policy, expected in {"skip": None, "clip": clipped}.items():
        data = PlainData(on_error=policy, image_size=(96, 128))  # type: ignore[arg-type]
        data.given = [scenes[1], bad]
        done = "cut 2 boxes" if expected else "left out 2 boxes"
        with pytest.warns(UserWarning, match=rf"PlainData {done} that cannot be used\. .*box 2 {problem}") as seen:
            data.setup("fit")  # the scene is in both splits
        assert len([each for each in seen if "PlainData" in str(each.message)]) == 1
        batch = data.splits["val"].__getitems__([1])
        assert batch.boxes[0, 0].tolist() == good
        assert batch.boxes[0, 1:].tolist() == ([list(expected)] if expected else [])
        assert batch.labels.tolist() == ([[0, 1]] if expected else [[0]])


def test_a_box_may_touch_the_edges(scenes: list[BoxedScene]) -> None:
    whole = replace(scenes[0], things=things_of([[0, 0, 128, 96]]))
    batch = everything(source_of([whole], "val", image_size=(96, 128)))
    assert batch.boxes.tolist() == [[[0, 0, 128, 96]]]


def test_the_first_bad_box_in_order_is_named(scenes: list[BoxedScene]) -> None:
    bad = [replace(scene, things=things_of([[5, 5, 5, 20]])) for scene in scenes]
    for _ in range(3):
        with pytest.raises(DataError, match=r"0\.png: box 1 has no area"):
            source_of(bad)


def test_cut_and_left_out_boxes_are_counted_apart(scenes: list[BoxedScene]) -> None:
    data = PlainData(on_error="clip", fold="all")
    data.given = [replace(scenes[0], things=things_of([[-5, 5, 9, 9], [5, 5, 5, 20], [1, 1, 9, 999]]))]
    with pytest.warns(UserWarning, match=r"PlainData cut 4 boxes, left out 2 boxes that cannot be used"):
        data.setup("fit")


@pytest.mark.parametrize("on_error", ["skip", "clip"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_picture_has_a_box(scenes: list[BoxedScene], split: str, on_error: Any) -> None:
    bare = [replace(scene, things=things_of([[5, 5, 5, 20]])) for scene in scenes[:2]]
    purpose = "nothing to learn" if split == "train" else "nothing to compare with"
    with pytest.raises(DataError, match=f"none of 2 pictures of the {split} split has a box: {purpose}"):
        source_of(bare, split, on_error=on_error)


@pytest.mark.parametrize("cache", [0.0, 2.0])
def test_bad_pictures(scenes: list[BoxedScene], cache: float) -> None:
    scenes[1].image.write_bytes(scenes[1].image.read_bytes()[:60])
    for policy in ("raise", "clip"):
        with pytest.raises(DataError, match=r"1\.png: cannot be read"):
            everything(source_of(scenes, cache=cache, on_error=policy))
    source = source_of(scenes, cache=cache, on_error="skip")
    assert [Path(name).stem for name in source.inputs] == ["0", "2", "3", "4", "5"]
    assert len(everything(source).images) == 5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_size": (0, 5)}, r"image_size is \[0, 5\]"),
        ({"zoom_out": 0.5}, r"zoom_out is 0\.5; it must be at least 1, or 0"),
        ({"zoom_out": -1.0}, r"zoom_out is -1\.0"),
        ({"classes": []}, r"classes is \[\]"),
        ({"classes": ["a", "a"]}, r"classes is \['a', 'a'\]; .*each once"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlainData(**copy.deepcopy(bad))


# predict


def test_inputs_of_any_kind(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (20, 50, 3), np.uint8)
    grey = random.integers(0, 256, (30, 30), np.uint8)
    Image.fromarray(colours).save(folder / "b.png")
    Image.fromarray(colours).quantize(16).save(folder / "palette.png")
    Image.fromarray(np.dstack((colours, colours[..., :1]))).save(folder / "rgba.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(colours[:1, :1]).save(tmp_path / "dot.png")
    names = [str(tmp_path / name) for name in ("grey16.png", "grey.png", "dot.png")]
    data = PlainData(root=str(tmp_path / "nowhere"), image_size=(60, 60))
    data.inputs = [*names, str(folder), str(folder / "b.png")]
    data.setup("predict")
    source: Any = data.splits["predict"]
    assert source.inputs == [*names, *(str(folder / name) for name in ("b.png", "palette.png", "rgba.png"))]
    batch = everything(source)
    assert batch.original_sizes.tolist() == [[30, 30], [30, 30], [1, 1], [20, 50], [20, 50], [20, 50]]
    assert batch.sizes.tolist() == [[60, 60]] * 3 + [[24, 60]] * 3
    assert batch.boxes.shape == (6, 1, 4)
    assert (batch.labels == -1).all()
    assert torch.equal(batch.images[0], batch.images[1])
    assert batch.images[2].flatten(1).unique(dim=1).shape[1] == 1
    assert np.array_equal(np.asarray(source.picture(3)), colours)
    assert not batch.images[3:, :, 24:].any()


def test_facts() -> None:
    assert PlainData().describe() == DetectionFacts(3, ("yellow", "cyan"))
