"""Crops show what they are taken from, and their randomness follows from seed, epoch and item."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode

from leyden.errors import UsageError
from leyden_datamodules._crops import Augmentation, CropData, Span, Window, random_span

BLANK = (0.4, 0.6, 0.2)


def augmentation(**changes: Any) -> Augmentation:
    given: dict[str, Any] = {"crop_size": (8, 10), "scale": (1.0, 1.0), "flip": False, "colour": 0.0, "blank": BLANK}
    return Augmentation(**{**given, "seed": 0, **changes})


class PlainData(CropData[Any]):
    """What is not asked for here is left out."""

    fabricate = describe = listed = ready = None  # type: ignore[assignment]

    def load_inputs(self, inputs: Sequence[str]) -> Any:
        return None


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


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"crop_size": (0, 5)}, r"crop_size is \[0, 5\]"),
        ({"scale_jitter": (0.0, 1.0)}, r"scale_jitter is \[0.0, 1.0\]"),
        ({"scale_jitter": (2.0, 1.0)}, r"scale_jitter is \[2.0, 1.0\]"),
        ({"colour_jitter": -0.1}, "colour_jitter is -0.1"),
        ({"colour_jitter": 1.1}, "colour_jitter is 1.1"),
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
