"""Crops show what they are taken from, randomness follows from seed, epoch and item, and what fits is held."""

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from leyden.errors import DataError, UsageError
from leyden_datamodules._images import open_picture, upright_size
from leyden_datamodules._scenes import (
    Augmentation,
    Held,
    Scene,
    SceneData,
    Scenes,
    Span,
    Window,
    clear_padding,
    pad,
    random_span,
)

BLANK = (0.4, 0.6, 0.2)


def augmentation(**changes: Any) -> Augmentation:
    given: dict[str, Any] = {"crop_size": (8, 10), "scale": (1.0, 1.0), "flip": False, "colour": 0.0, "blank": BLANK}
    return Augmentation(**{**given, "seed": 0, **changes})


class Plain(Scenes[Scene]):
    """Whole pictures, as a list."""

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        return [self.pixels(index) for index in indices]


class PlainData(SceneData[Any]):
    """What is not asked for here is left out."""

    fabricate = describe = load = None  # type: ignore[assignment]

    def load_inputs(self, inputs: Sequence[str]) -> Plain:
        return source_of([])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five pictures of five sizes, the middle one a JPEG that lies on its side."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (5 + number, 9 - number, 3), np.uint8)).save(path)
    lying = Image.fromarray(random.integers(0, 256, (6, 11, 3), np.uint8))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif)
    return [*paths[:2], tmp_path / "lying.jpg", *paths[2:]]


def source_of(files: Sequence[Path]) -> Plain:
    return Plain([Scene(path) for path in files])


# crops


@settings(max_examples=200, deadline=None)
@given(side=st.integers(1, 60), crop=st.integers(1, 60), scale=st.floats(0.1, 8), seed=st.integers(0, 99))
def test_a_span_stays_inside(side: int, crop: int, scale: float, seed: int) -> None:
    span = random_span(side, crop, scale, np.random.default_rng(seed))
    assert span.start >= 0
    assert 1 <= span.length <= side - span.start
    assert span.place >= 0
    assert 1 <= span.out <= crop - span.place
    # the crop is full, or holds the whole side
    assert span.out == crop or span.length == side
    # one factor, up to the rounding of either length to a pixel
    assert (span.out - 0.5) / (span.length + 0.5) <= scale or span.out == 1
    assert scale <= (span.out + 0.5) / max(span.length - 0.5, 1e-9) or span.length == 1


def test_a_span_is_anywhere() -> None:
    random = np.random.default_rng(0)
    assert {random_span(7, 4, 1.0, random) for _ in range(200)} == {Span(start, 4, 0, 4) for start in range(4)}
    assert {random_span(4, 7, 1.0, random) for _ in range(200)} == {Span(0, 4, place, 4) for place in range(4)}


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), flip=st.booleans(), index=st.integers(0, 99))
def test_without_resizing_a_crop_is_the_picture(height: int, width: int, flip: bool, index: int) -> None:
    """Against numpy: pad the picture on all sides, then find the crop in it."""
    rules = augmentation(flip=flip)
    pixels = torch.arange(3 * height * width).remainder(251).to(torch.uint8).view(3, height, width)
    window = rules.window((height, width), rules.random(0, index))
    crop = rules.blanks(1)[0]
    window.paste(window.cut(pixels), crop)
    found = crop.flip(-1) if window.flipped else crop
    blank = np.array([102, 153, 51], np.uint8)[:, None, None]
    canvas = np.broadcast_to(blank, (3, height + 16, width + 20)).copy()
    canvas[:, 8 : 8 + height, 10 : 10 + width] = pixels
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (3, 8, 10))[0]
    matches = (windows == found.numpy()).all((-1, -2, -3)).nonzero()
    tops, lefts = matches[0] - 8, matches[1] - 10
    inside = (tops >= min(0, height - 8)) & (tops <= max(0, height - 8))
    inside &= (lefts >= min(0, width - 10)) & (lefts <= max(0, width - 10))
    assert inside.any()


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_an_image_and_its_mask_stay_on_each_other(scale: float, flip: bool) -> None:
    """Both hold their own coordinates, so that a crop tells where each pixel comes from."""
    rules = augmentation(crop_size=(40, 60), scale=(scale, scale), flip=flip)
    rows = torch.arange(100).view(1, -1, 1).expand(1, 100, 140)
    columns = torch.arange(140).view(1, 1, -1).expand(1, 100, 140)
    image = torch.cat((rows, columns, rows)).to(torch.uint8)
    for index in range(10):
        window = rules.window((100, 140), rules.random(0, index))
        smooth, nearest = window.cut(image).int(), window.cut(image, InterpolationMode.NEAREST_EXACT).int()
        assert smooth.shape == (3, 40, 60)
        inner = (slice(None), slice(4, -4), slice(4, -4))  # at the border there is nothing to average with
        assert (smooth[inner] - nearest[inner]).abs().max() <= 0.5 / scale + 1
        # the pixels are where align_corners=False says, of a closed form
        across = nearest[1, 0].double()
        expected = window.columns.start + (torch.arange(60) + 0.5) * window.columns.length / 60 - 0.5
        assert ((across.flip(0) if window.flipped else across) - expected).abs().max() <= 0.51


def test_half_of_the_pictures_are_mirrored() -> None:
    rules = augmentation(flip=True)
    flipped = sum(rules.window((20, 20), rules.random(0, index)).flipped for index in range(1000))
    assert flipped == pytest.approx(500, abs=60)
    assert not any(augmentation().window((20, 20), rules.random(0, index)).flipped for index in range(50))


def test_halving_is_as_likely_as_doubling() -> None:
    rules = augmentation(crop_size=(100, 100), scale=(0.5, 2.0))
    lengths = [rules.window((400, 400), rules.random(0, index)).rows.length for index in range(2000)]
    logarithms = -np.log2(np.array(lengths) / 100)
    assert (logarithms.min(), logarithms.max()) == pytest.approx((-1, 1), abs=0.02)
    assert logarithms.mean() == pytest.approx(0, abs=0.06)
    assert np.mean(logarithms < -0.5) == pytest.approx(0.25, abs=0.04)  # uniform


def test_one_factor_for_both_sides() -> None:
    rules = augmentation(crop_size=(100, 200), scale=(0.5, 2.0))
    for index in range(50):
        window = rules.window((900, 900), rules.random(0, index))
        assert window.columns.length == pytest.approx(2 * window.rows.length, abs=2)


def test_colours_change_as_computed_by_hand() -> None:
    image = torch.randint(0, 256, (3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rules = augmentation(colour=0.5)
    for index in range(20):
        brightness, contrast, saturation = rules.random(0, index).uniform(0.5, 1.5, size=3)
        weights = np.array([0.2989, 0.587, 0.114])[:, None, None]  # ITU-R BT.601
        values = np.clip(image.double().numpy() / 255 * brightness, 0, 1)
        values = np.clip(contrast * values + (1 - contrast) * (weights * values).sum(0).mean(), 0, 1)
        values = np.clip(saturation * values + (1 - saturation) * (weights * values).sum(0), 0, 1)
        found = rules.recolour(image, rules.random(0, index))
        assert found.dtype == torch.uint8
        assert np.abs(found.double().numpy() - 255 * values).max() < 1.01
    assert augmentation().recolour(image, rules.random(0, 0)) is image


def test_randomness_follows_from_seed_epoch_and_item() -> None:
    def draw(seed: int, epoch: int, index: int) -> float:
        return augmentation(seed=seed).random(epoch, index).random()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    drawn = {draw(seed, epoch, index) for seed in (-1, 0, 1) for epoch in range(5) for index in range(50)}
    assert len(drawn) == 3 * 5 * 50


# batches


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), value=st.integers(0, 255)
)
def test_padding(sizes: list[tuple[int, int]], value: int) -> None:
    parts = [torch.randint(0, 256, (2, *size), dtype=torch.uint8) for size in sizes]
    batch = pad(parts, value)
    assert batch.shape == (len(parts), 2, max(size[0] for size in sizes), max(size[1] for size in sizes))
    for padded, part, (height, width) in zip(batch, parts, sizes, strict=True):
        expected = np.pad(
            part.numpy(),
            ((0, 0), (0, batch.shape[2] - height), (0, batch.shape[3] - width)),
            constant_values=np.uint8(value),
        )
        assert np.array_equal(padded.numpy(), expected)
    images = clear_padding(torch.ones(batch.shape), torch.tensor(sizes))
    assert images.sum((1, 2, 3)).tolist() == [2 * height * width for height, width in sizes]
    assert all(bool(image[:, : size[0], : size[1]].all()) for image, size in zip(images, sizes, strict=True))


def test_normalized() -> None:
    data = PlainData(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    before = images.clone()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (data.mean, data.std))
    found = data.normalized(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), (images.double() / 255 - mean) / std, atol=1e-6, rtol=1e-6)
    assert torch.equal(images, before)


# what is held in memory


def test_upright_size_is_that_of_the_decoded_picture(files: list[Path]) -> None:
    for path in files:
        picture = open_picture(path, "RGB")
        assert upright_size(path) == (picture.height, picture.width)
    assert upright_size(files[2]) == (11, 6)
    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        upright_size(files[0].with_name("gone.jpg"))


def test_held_tensors_are_apart() -> None:
    held = Held(4, [(2, 3), (1, 1), (5, 2)])
    for index in range(3):
        held[index].fill_(index + 1)
    assert [held[index].shape for index in range(3)] == [(4, 2, 3), (4, 1, 1), (4, 5, 2)]
    assert held.memory.bincount().tolist() == [0, 24, 4, 40]
    held.select([2, 0])
    assert [held[index].unique().tolist() for index in range(2)] == [[3], [1]]


def test_held_pictures_are_the_files(files: list[Path]) -> None:
    plain, held = source_of(files), source_of(files)
    PlainData().prepare(held)
    assert held.held is not None
    for index in range(5):
        assert torch.equal(plain.pixels(index), held.pixels(index))
        assert np.array_equal(np.asarray(plain.picture(index)), plain.pixels(index).permute(1, 2, 0).numpy())
    assert held.inputs == plain.inputs == [str(path) for path in files]


def test_what_does_not_fit_is_not_held(
    files: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * sum(height * width for height, width in map(upright_size, files))
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    data = PlainData(cache=1.5 * needed / 2**30)
    with caplog.at_level(logging.INFO, "leyden"):
        first, second = source_of(files), source_of(files)
        data.prepare(first)
        assert not caplog.messages
        data.prepare(second)
    assert first.held is not None
    assert second.held is None
    [message] = set(caplog.messages)  # a test before may have left a second handler
    assert "5 scenes take" in message
    assert "--data.num_workers 2" in message
    off = source_of(files)
    PlainData(cache=0).prepare(off)
    assert off.held is None


def test_the_epoch_is_seen_by_copies_in_other_processes(files: list[Path]) -> None:
    source = source_of(files)
    worker = torch.multiprocessing.get_context("fork").Process(target=source.set_epoch, args=(7,))
    worker.start()
    worker.join()
    assert source.epoch == 7


# bad scenes


@pytest.mark.parametrize("cache", [0, 2])
@pytest.mark.parametrize("end", [0, 60, -25], ids=["empty", "within the head", "within the pixels"])
def test_bad_scenes(files: list[Path], cache: float, end: int) -> None:
    for path in files[1:3]:
        path.write_bytes(path.read_bytes()[:end])

    def read(source: Plain) -> list[Tensor]:
        PlainData(cache=cache).prepare(source)
        return source.__getitems__(range(len(source)))

    with pytest.raises(DataError, match=r"1\.png"):
        read(source_of(files))
    data = PlainData(cache=cache, on_error="skip")
    source = source_of(files)
    data.prepare(source)
    left = [0, 3, 4]
    assert source.inputs == [str(files[index]) for index in left]
    for pixels, index in zip(source.__getitems__(range(3)), left, strict=True):
        assert torch.equal(pixels, source_of(files).pixels(index))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            data.setup("predict")
    [message] = [str(warning.message) for warning in caught]
    assert "PlainData left out 2 scenes that cannot be used" in message
    assert str(files[1]) in message


def test_all_bad(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 5 scenes can be used.*0\.png"):
        PlainData(on_error="skip").prepare(source_of(files))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"crop_size": (0, 5)}, r"crop_size is \[0, 5\]"),
        ({"scale_jitter": (0.0, 1.0)}, r"scale_jitter is \[0.0, 1.0\]"),
        ({"scale_jitter": (2.0, 1.0)}, r"scale_jitter is \[2.0, 1.0\]"),
        ({"colour_jitter": -0.1}, "colour_jitter is -0.1"),
        ({"colour_jitter": 1.1}, "colour_jitter is 1.1"),
        ({"std": (1.0, 0.0, 1.0)}, r"std is \[1.0, 0.0, 1.0\]"),
        ({"cache": -1.0}, "cache is -1.0"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlainData(**copy.deepcopy(bad))


def test_augmentation_follows_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    data = PlainData(seed=3)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert data.augmentation().seed == 3
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert data.augmentation().seed == 11


def test_a_window_has_nothing_to_do_with_masks() -> None:
    """Boxes can be moved by what a window says."""
    window = Window(Span(2, 4, 0, 8), Span(1, 3, 1, 6), flipped=False)
    pixels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    pixels[0, 3, 2] = 255  # the box (2, 3) to (3, 4), xy
    crop = torch.zeros(1, 8, 7, dtype=torch.uint8)
    window.paste(window.cut(pixels, InterpolationMode.NEAREST_EXACT), crop)
    rows, columns = crop[0].nonzero().unbind(1)
    assert (columns.min(), columns.max() + 1) == ((2 - 1) * 2 + 1, (3 - 1) * 2 + 1)
    assert (rows.min(), rows.max() + 1) == ((3 - 2) * 2, (4 - 2) * 2)
