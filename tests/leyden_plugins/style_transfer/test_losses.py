"""The losses of style transfer against loops in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leyden_plugins.style_transfer.losses import content_loss, gram_matrix, style_loss, total_variation
from leyden_plugins.style_transfer.metrics import LossParts

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6), st.integers(2, 6))


def random_maps(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def gram_by_loops(maps: Any) -> Any:
    """Of (C, H, W), as "Dive into Deep Learning" defines it in section 14.12."""
    channels, height, width = maps.shape
    gram = np.zeros((channels, channels))
    for first, second in itertools.product(range(channels), repeat=2):
        for row, column in itertools.product(range(height), range(width)):
            gram[first, second] += maps[first, row, column] * maps[second, row, column]
    return gram / (channels * height * width)


def mean_square(first: Any, second: Any) -> float:
    pairs = list(zip(first.ravel(), second.ravel(), strict=True))
    return sum((one - other) ** 2 for one, other in pairs) / len(pairs)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_gram_matrix(shape: tuple[int, ...], seed: int) -> None:
    maps = random_maps(shape, seed)
    expected = np.stack([gram_by_loops(each) for each in maps.numpy()])
    np.testing.assert_allclose(gram_matrix(maps), expected, rtol=1e-12, atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), weights=st.lists(st.floats(0, 9), min_size=2, max_size=2))
def test_content_loss(shape: tuple[int, ...], seed: int, weights: list[float]) -> None:
    maps, targets = ({layer: random_maps(shape, seed + place) for layer, place in places} for places in layers_twice())
    found = content_loss(maps, targets, dict(zip("ab", weights, strict=True)))
    for index, loss in enumerate(found):
        each = [mean_square(maps[layer][index].numpy(), targets[layer][index].numpy()) for layer in "ab"]
        assert loss.item() == pytest.approx(weights[0] * each[0] + weights[1] * each[1], rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), weights=st.lists(st.floats(0, 9), min_size=2, max_size=2))
def test_style_loss(shape: tuple[int, ...], seed: int, weights: list[float]) -> None:
    """The style may be a picture of another size, one for all."""
    batch, channels, height, width = shape
    maps = {layer: random_maps(shape, seed + place) for place, layer in enumerate("ab")}
    styles = {
        layer: random_maps((1, channels, width + 1, height), seed + place) for place, layer in enumerate("ab", start=2)
    }
    grams = {layer: gram_matrix(each) for layer, each in styles.items()}
    found = style_loss(maps, grams, dict(zip("ab", weights, strict=True)))
    assert found.shape == (batch,)
    for index, loss in enumerate(found):
        each = [
            mean_square(gram_by_loops(maps[layer][index].numpy()), gram_by_loops(styles[layer][0].numpy()))
            for layer in "ab"
        ]
        assert loss.item() == pytest.approx(weights[0] * each[0] + weights[1] * each[1], rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_total_variation(shape: tuple[int, ...], seed: int) -> None:
    images = random_maps(shape, seed)
    for image, found in zip(images.numpy(), total_variation(images), strict=True):
        channels, height, width = image.shape
        below = [
            abs(image[c, y + 1, x] - image[c, y, x])
            for c, y, x in itertools.product(range(channels), range(height - 1), range(width))
        ]
        beside = [
            abs(image[c, y, x + 1] - image[c, y, x])
            for c, y, x in itertools.product(range(channels), range(height), range(width - 1))
        ]
        expected = 0.5 * (sum(below) / len(below) + sum(beside) / len(beside))
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_an_image_of_one_row_varies_along_it_only() -> None:
    row = torch.tensor([1.0, 3.0, 3.0, 0.0]).view(1, 1, 1, 4)
    assert total_variation(row).item() == pytest.approx(0.5 * 5 / 3)
    assert total_variation(row.transpose(2, 3)).item() == pytest.approx(0.5 * 5 / 3)
    assert total_variation(row[..., :1]).item() == 0


def test_maps_of_half_precision_are_summed_in_single() -> None:
    """In bfloat16 a sum of 4096 ones would stay far below that."""
    maps = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram = gram_matrix(maps * 1.0078125)
    assert gram.dtype == torch.float32
    assert gram.item() == pytest.approx(1.0078125**2, rel=1e-6)
    assert content_loss({"a": maps}, {"a": maps + 1}, {"a": 1.0}).dtype == torch.float32


def test_the_metric_is_the_mean_over_all_pictures() -> None:
    losses = torch.rand(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metric = LossParts()
    for part in losses.split((4, 1, 2)):
        metric.update(part.float())
    found = metric.compute()
    assert list(found) == ["content_loss", "style_loss", "tv_loss"]
    assert [value.item() for value in found.values()] == pytest.approx(losses.mean(0).tolist(), rel=1e-6)


def layers_twice() -> list[list[tuple[str, int]]]:
    return [[("a", 0), ("b", 1)], [("a", 2), ("b", 3)]]
