"""Windows over large pictures: they cover each pixel, overlap as asked, and are blended into what the whole gives."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leyden_plugins.segmentation.windows import blending_shares, predict_in_windows, window_starts

sides = st.tuples(st.integers(1, 90), st.integers(1, 40), st.floats(0, 0.95))


@settings(deadline=None)
@given(sides)
def test_windows_reach_from_end_to_end_and_overlap_as_asked(side: tuple[int, int, float]) -> None:
    length, window, overlap = side
    starts = window_starts(length, window, overlap)
    if length <= window:
        assert starts == [0]
        return
    assert starts[0] == 0
    assert starts[-1] + window == length
    shared = [window - (after - before) for before, after in pairwise(starts)]
    # a window moves by one pixel at least
    assert min(shared) >= min(overlap * window, window - 1) - 1e-9
    assert max(shared) - min(shared) <= 1, "as evenly as whole pixels allow"


def test_there_are_no_more_windows_than_needed() -> None:
    assert window_starts(100, 50, 0.0) == [0, 50]
    assert window_starts(100, 50, 0.5) == [0, 25, 50]
    assert window_starts(101, 50, 0.5) == [0, 17, 34, 51]


@settings(deadline=None)
@given(sides)
def test_the_shares_in_each_pixel_add_up_to_one(side: tuple[int, int, float]) -> None:
    length = side[0]
    total = torch.zeros(length)
    for start, share in blending_shares(*side):
        assert (share > 0).all()
        total[start : start + len(share)] += share
    torch.testing.assert_close(total, torch.ones(length))


def test_shares_fall_towards_a_windows_end() -> None:
    (_, first), (start, second) = blending_shares(6, 4, 0.5)
    assert start == 2
    torch.testing.assert_close(first, torch.tensor([1, 1, 2 / 3, 1 / 3]))
    torch.testing.assert_close(second, first.flip(0))


class Spy(nn.Module):
    """Remembers the sizes of what it is given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape[-2:]))
        found: Tensor = self.net(images)
        return found


@pytest.mark.parametrize("size", [(37, 53), (9, 53), (37, 9), (5, 7), (16, 16), (17, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_a_network_that_sees_single_pixels_gives_the_same_everywhere(size: tuple[int, int], overlap: float) -> None:
    torch.manual_seed(0)
    net, images = Spy(nn.Conv2d(3, 4, 1)), torch.randn(2, 3, *size)
    with torch.no_grad():
        found = predict_in_windows(net, images, 16, overlap)
        torch.testing.assert_close(found, net.net(images))
    assert set(net.sizes) == {(min(16, size[0]), min(16, size[1]))}


def test_a_network_that_sees_neighbours_gives_the_same_away_from_the_windows_borders() -> None:
    """Two 3x3 convolutions see two pixels far; without overlap the windows meet at columns and rows 16, 32, ..."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        found, whole = predict_in_windows(net, images, 16, 0.0), net(images)
    near = torch.zeros(48, 64, dtype=torch.bool)
    for seam in (16, 32):
        near[seam - 2 : seam + 2] = True
    for seam in (16, 32, 48):
        near[:, seam - 2 : seam + 2] = True
    torch.testing.assert_close(found[..., ~near], whole[..., ~near])
    assert not torch.allclose(found[..., near], whole[..., near])


def test_overlap_makes_the_seams_smaller() -> None:
    torch.manual_seed(0)
    net, images = nn.Conv2d(1, 1, 7, padding=3), torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        whole = net(images)
        errors = [(predict_in_windows(net, images, 32, overlap) - whole).abs().max() for overlap in (0.0, 0.5)]
    assert errors[1] < 0.5 * errors[0]


def test_blending_is_a_weighted_mean() -> None:
    """Two windows of 4 over 6 pixels, which say 0 and 1: in the middle two pixels they have shares of 2/3 and 1/3."""
    answers = iter((0.0, 1.0))
    found = predict_in_windows(lambda images: torch.full_like(images, next(answers)), torch.zeros(1, 1, 1, 6), 4, 0.5)
    torch.testing.assert_close(found.flatten(), torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]))


def test_half_precision_is_blended_in_float32() -> None:
    images = torch.rand(1, 2, 20, 20).bfloat16()
    found = predict_in_windows(lambda window: F.relu(window), images, 8, 0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images.float())
