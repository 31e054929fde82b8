"""Anchors against loops that place one box after the other, and against what the book prints."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden_plugins.detection.anchors import AnchorGrid

CPU = torch.device("cpu")
BOOK_SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
BOOK_RATIOS = (1.0, 2.0, 0.5)
shares = st.floats(0.01, 2.0)


def plain_anchors(
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    map_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> list[list[float]]:
    height, width = image_size
    found = []
    for of_map, (rows, columns) in zip(sizes, map_sizes, strict=True):
        shapes = [(size, ratios[0]) for size in of_map] + [(of_map[0], ratio) for ratio in ratios[1:]]
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
                for size, ratio in shapes:
                    across, down = size * height * math.sqrt(ratio), size * height / math.sqrt(ratio)
                    found.append([x - across / 2, y - down / 2, x + across / 2, y + down / 2])
    return found


@settings(deadline=None)
@given(
    maps=st.lists(
        st.tuples(st.lists(shares, min_size=1, max_size=3), st.tuples(st.integers(1, 4), st.integers(1, 4))),
        min_size=1,
        max_size=3,
    ),
    ratios=st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
    image_size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
)
def test_anchors_are_those_of_a_loop(
    maps: list[tuple[list[float], tuple[int, int]]], ratios: list[float], image_size: tuple[int, int]
) -> None:
    sizes, map_sizes = zip(*maps, strict=True)
    grid = AnchorGrid(sizes, ratios)
    found = grid.boxes(map_sizes, image_size, CPU)
    assert found.dtype == torch.float32
    expected = torch.tensor(plain_anchors(sizes, ratios, map_sizes, image_size))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-3)
    counts = [rows * columns * count for (rows, columns), count in zip(map_sizes, grid.per_place, strict=True)]
    assert sum(counts) == len(found)


def test_the_book_s_network_has_5444() -> None:
    grid = AnchorGrid(BOOK_SIZES, BOOK_RATIOS)
    assert grid.per_place == (4, 4, 4, 4, 4)
    assert len(grid.boxes([(side, side) for side in (32, 16, 8, 4, 1)], (256, 256), CPU)) == 5444


def test_the_book_s_example_of_each_pixel() -> None:
    """Section 14.4.1: the first anchor of pixel (250, 250) of a picture of 561 x 728, in shares of its sides."""
    boxes = AnchorGrid([(0.75, 0.5, 0.25)], (1.0, 2.0, 0.5)).boxes([(561, 728)], (561, 728), CPU)
    assert len(boxes) == 2042040
    first = boxes.view(561, 728, 5, 4)[250, 250, 0] / torch.tensor([728, 561, 728, 561])
    assert [round(value, 2) for value in first.tolist()] == [0.06, 0.07, 0.63, 0.82]


@pytest.mark.parametrize("image_size", [(100, 300), (300, 100)])
def test_ratios_are_of_pixels_in_images_that_are_not_square(image_size: tuple[int, int]) -> None:
    boxes = AnchorGrid([(0.5,)], (1.0, 4.0, 0.25)).boxes([(2, 3)], image_size, CPU)
    extents = boxes[:, 2:] - boxes[:, :2]
    side = 0.5 * image_size[0]
    torch.testing.assert_close(extents[:3], torch.tensor([[side, side], [2 * side, side / 2], [side / 2, 2 * side]]))


def test_they_may_reach_beyond_the_image() -> None:
    boxes = AnchorGrid([(2.0,)], (1.0,)).boxes([(1, 1)], (10, 20), CPU)
    assert boxes.tolist() == [[0.0, -5.0, 20.0, 15.0]]


def test_what_was_built_is_kept_for_images_of_its_size() -> None:
    grid = AnchorGrid([(0.5,)], (1.0,))
    first = grid.boxes([(2, 3)], (64, 96), CPU)
    assert grid.boxes(((2, 3),), (64, 96), CPU) is first
    larger, finer = grid.boxes([(2, 3)], (128, 192), CPU), grid.boxes([(4, 6)], (64, 96), CPU)
    torch.testing.assert_close(larger, 2 * first)
    assert finer.shape == (24, 4)
    assert grid.boxes([(2, 3)], (64, 96), CPU) is first


def test_what_inference_has_built_serves_in_training() -> None:
    grid = AnchorGrid([(0.5,)], (1.0,))
    with torch.inference_mode():
        boxes = grid.boxes([(2, 3)], (64, 96), CPU)
    offsets = torch.ones(6, 4, requires_grad=True)
    (grid.boxes([(2, 3)], (64, 96), CPU) * offsets).sum().backward()
    assert offsets.grad is not None
    assert torch.equal(offsets.grad, boxes)


@pytest.mark.parametrize("bad", [[], [0.5, 0.0], [-1.0], [math.nan, 0.5], [0.5, math.nan], [math.inf]])
def test_numbers_that_cannot_be(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"sizes is .*, expected numbers above 0"):
        AnchorGrid([[0.5], bad], BOOK_RATIOS)
    with pytest.raises(ValueError, match=r"ratios is .*, expected numbers above 0"):
        AnchorGrid(BOOK_SIZES, bad)


def test_no_maps() -> None:
    with pytest.raises(ValueError, match=r"sizes is \(\), expected numbers above 0"):
        AnchorGrid((), BOOK_RATIOS)
