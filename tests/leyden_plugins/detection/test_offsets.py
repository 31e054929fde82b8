"""Offsets against the formulas of the book, one box after the other; encoding and decoding undo each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden_plugins.detection.offsets import decode, encode

sides, places = st.floats(0.5, 600), st.floats(-300, 900)
boxes = st.tuples(places, places, sides, sides).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
pairs = st.lists(st.tuples(boxes, boxes), min_size=1, max_size=8)


def plain_offsets(anchor: tuple[float, ...], box: tuple[float, ...]) -> list[float]:
    (left, top, right, bottom), (x1, y1, x2, y2) = anchor, box
    return [
        ((x1 + x2) / 2 - (left + right) / 2) / (right - left) / 0.1,
        ((y1 + y2) / 2 - (top + bottom) / 2) / (bottom - top) / 0.1,
        math.log((x2 - x1) / (right - left)) / 0.2,
        math.log((y2 - y1) / (bottom - top)) / 0.2,
    ]


@settings(deadline=None)
@given(pairs)
def test_offsets_are_those_of_a_loop(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    anchors, things = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    expected = torch.tensor([plain_offsets(*pair) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(encode(anchors, things), expected)
    # a side of .5 beside coordinates of 1000 has 12 of float32's 24 bits
    torch.testing.assert_close(encode(anchors.float(), things.float()), expected.float(), rtol=1e-3, atol=2e-2)


@settings(deadline=None)
@given(pairs)
def test_decoding_undoes_encoding(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    anchors, things = (torch.tensor(each) for each in zip(*pairs, strict=True))
    small = ((things[:, 2:] - things[:, :2]) <= 62 * (anchors[:, 2:] - anchors[:, :2])).all(dim=1)
    found = decode(anchors, encode(anchors, things))
    torch.testing.assert_close(found[small], things[small], rtol=1e-4, atol=1e-2)


@settings(deadline=None)
@given(boxes, st.tuples(*[st.floats(-20, 20)] * 4))
def test_encoding_undoes_decoding(anchor: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    anchors, wanted = (torch.tensor([each], dtype=torch.float64) for each in (anchor, offsets))
    torch.testing.assert_close(encode(anchors, decode(anchors, wanted)), wanted, rtol=1e-6, atol=1e-6)


def test_without_offsets_a_box_is_its_anchor() -> None:
    anchors = torch.tensor([[2.0, 3.0, 10.0, 7.0], [-5.0, 0.0, 5.0, 100.0]])
    assert torch.equal(decode(anchors, torch.zeros(2, 4)), anchors)
    assert torch.equal(encode(anchors, anchors), torch.zeros(2, 4))


def test_units_of_the_book() -> None:
    """A tenth of a side to the right, e^.2 times as high."""
    found = decode(torch.tensor([0.0, 0.0, 10.0, 20.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    high = 20 * math.exp(0.2)
    torch.testing.assert_close(found, torch.tensor([1.0, 10 - high / 2, 11.0, 10 + high / 2]))


def test_leading_dimensions_are_kept_and_broadcast() -> None:
    anchors, offsets = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 5]]), torch.randn(3, 2, 4)
    found = decode(anchors, offsets)
    assert found.shape == (3, 2, 4)
    torch.testing.assert_close(encode(anchors.expand(3, 2, 4), found), offsets, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("huge", [1e3, 1e30, -1e3, -1e30])
def test_huge_offsets_give_finite_boxes(huge: float) -> None:
    anchor = torch.tensor([0.0, 0.0, 100.0, 50.0])
    found = decode(anchor, torch.full((4,), huge))
    assert found.isfinite().all()
    grown = decode(anchor, torch.tensor([0.0, 0.0, huge, huge]))
    across, down = grown[2] - grown[0], grown[3] - grown[1]
    if huge > 0:
        torch.testing.assert_close(torch.stack((across, down)), torch.tensor([6250.0, 3125.0]))
    else:
        assert across == down == 0
