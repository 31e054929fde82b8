"""Matching against a loop over its definition in exact fractions, and against what the book prints."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leyden_plugins.detection.matching import NO_BOX, assign, match, pairwise_iou

Corners = tuple[int, int, int, int]
Image = list[tuple[Corners, int]]  # boxes with their labels

side = st.integers(0, 7)
# within 0 to 7 many overlap, touch, or are the same; IoUs that differ then also do in float32
anchor = st.tuples(side, side, st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
anchor_lists = st.lists(anchor, min_size=1, max_size=8)
# some without area, some beyond all anchors, some that are no boxes
box = st.tuples(side, side, side, side).map(lambda b: (b[0] * 2 - 4, b[1], b[0] * 2 - 4 + b[2], b[1] + b[3]))
image = st.lists(st.tuples(box, st.integers(-1, 2)), max_size=10)
thresholds = st.sampled_from([Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)])


def plain_iou(one: Corners, other: Corners) -> Fraction:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    if across <= 0 or down <= 0 or min(areas) <= 0:
        return Fraction(0)
    return Fraction(across * down, sum(areas) - across * down)


def plain_match(anchors: list[Corners], things: Image, threshold: Fraction) -> list[int]:
    matched = [-1] * len(anchors)
    boxes = [place for place, (_, label) in enumerate(things) if label >= 0]
    ious = {(place, a): plain_iou(things[place][0], anchors[a]) for place in boxes for a in range(len(anchors))}
    free_boxes, free_anchors = list(boxes), list(range(len(anchors)))
    while True:
        best, pair = Fraction(0), None
        for place in free_boxes:
            for a in free_anchors:
                if ious[place, a] > best:
                    best, pair = ious[place, a], (place, a)
        if pair is None:
            break
        matched[pair[1]] = pair[0]
        free_boxes.remove(pair[0])
        free_anchors.remove(pair[1])
    for a in free_anchors:
        largest = max((ious[place, a] for place in boxes), default=Fraction(0))
        if largest > 0 and largest >= threshold:
            matched[a] = next(place for place in boxes if ious[place, a] == largest)
    return matched


def padded(images: list[Image], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (B, M, 4) and labels (B, M)."""
    most = max(1, *(len(things) for things in images)) + extra
    boxes, labels = torch.zeros(len(images), most, 4), torch.full((len(images), most), -1)
    for number, things in enumerate(images):
        for place, (corners, label) in enumerate(things):
            boxes[number, place] = torch.tensor(corners)
            labels[number, place] = label
    return boxes, labels


@settings(deadline=None, max_examples=300)
@given(anchor_lists, st.lists(image, min_size=1, max_size=4), thresholds)
def test_a_batch_is_matched_as_a_loop_does(anchors: list[Corners], images: list[Image], threshold: Fraction) -> None:
    found = match(torch.tensor(anchors).float(), *padded(images), float(threshold))
    assert found.dtype == torch.int64
    assert found.tolist() == [plain_match(anchors, things, threshold) for things in images]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 12), st.sampled_from([0.0, 0.3, 0.5]))
def test_boxes_at_any_place_are_matched_as_a_loop_does(seed: int, count: int, threshold: float) -> None:
    """Here no two IoUs are the same; the loop has the same numbers exactly."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(30 + count, 2, generator=generator).mul(2**12).round() / 2**12
    extents = torch.rand(30 + count, 2, generator=generator).mul(2**11).round().add(64) / 2**12
    whole = torch.cat((corners, corners + extents), dim=1)
    exact = [tuple(Fraction(value) for value in row) for row in whole.tolist()]
    anchors, things = exact[:30], [(each, 0) for each in exact[30:]]
    expected = plain_match(anchors, things, Fraction(threshold))  # type: ignore[arg-type]
    boxes = torch.cat((whole[30:], torch.zeros(1, 4)))[None]
    labels = torch.tensor([[0] * count + [-1]])
    assert match(whole[:30], boxes, labels, threshold)[0].tolist() == expected


@settings(deadline=None)
@given(anchor_lists, st.lists(image, min_size=1, max_size=4), st.integers(0, 3))
def test_neighbours_and_padding_change_nothing(anchors: list[Corners], images: list[Image], extra: int) -> None:
    places = torch.tensor(anchors).float()
    together = assign(places, *padded(images, extra))
    for number, things in enumerate(images):
        alone = assign(places, *padded([things]))
        assert torch.equal(alone.classes[0], together.classes[number])
        assert torch.equal(alone.offsets[0], together.offsets[number])


@settings(deadline=None)
@given(anchor_lists, st.lists(image, min_size=1, max_size=4), st.sampled_from([0.0, 0.5]))
def test_targets_are_classes_and_offsets_of_the_matched_boxes(
    anchors: list[Corners], images: list[Image], threshold: float
) -> None:
    places, (boxes, labels) = torch.tensor(anchors).float(), padded(images)
    matched, targets = match(places, boxes, labels, threshold), assign(places, boxes, labels, threshold)
    assert targets.offsets.dtype == torch.float32
    assert targets.offsets.isfinite().all()
    for number, things in enumerate(images):
        for place, (left, top, right, bottom) in enumerate(anchors):
            chosen = int(matched[number, place])
            if chosen == NO_BOX:
                assert targets.classes[number, place] == 0
                assert targets.offsets[number, place].tolist() == [0, 0, 0, 0]
                continue
            (x1, y1, x2, y2), label = things[chosen]
            assert targets.classes[number, place] == label + 1
            moved = [
                ((x1 + x2) - (left + right)) / 2 / (right - left),
                ((y1 + y2) - (top + bottom)) / 2 / (bottom - top),
            ]
            grown = [math.log((x2 - x1) / (right - left)), math.log((y2 - y1) / (bottom - top))]
            expected = [*(10 * value for value in moved), *(5 * value for value in grown)]
            assert targets.offsets[number, place].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


BOOK_ANCHORS = torch.tensor(
    [
        [0, 0.1, 0.2, 0.3],
        [0.15, 0.2, 0.4, 0.4],
        [0.63, 0.05, 0.88, 0.98],
        [0.66, 0.45, 0.8, 0.8],
        [0.57, 0.3, 0.92, 0.9],
    ]
)
BOOK_BOXES = torch.tensor([[[0.1, 0.08, 0.52, 0.92], [0.55, 0.2, 0.9, 0.88]]])  # a dog and a cat


def test_the_book_s_example() -> None:
    """Section 14.4.3.3, whose logarithms have 1e-6 added."""
    targets = assign(BOOK_ANCHORS, BOOK_BOXES, torch.tensor([[0, 1]]))
    assert targets.classes.tolist() == [[0, 1, 2, 0, 2]]
    printed = [
        *([0, 0, 0, 0], [1.40, 10.0, 2.59, 7.18], [-1.20, 0.269, 1.68, -1.57]),
        *([0, 0, 0, 0], [-0.571, -1.00, 4.17e-6, 0.626]),
    ]
    torch.testing.assert_close(targets.offsets, torch.tensor([printed]), rtol=5e-3, atol=1e-5)
    assert match(BOOK_ANCHORS, BOOK_BOXES, torch.tensor([[0, 1]])).tolist() == [[-1, 0, 1, -1, 1]]


def test_boxes_that_want_the_same_anchor() -> None:
    """The better one gets it, the other the next best, although the first anchor has a larger IoU with both."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]])
    boxes = torch.tensor([[[0.0, 0, 10, 9], [0, 0, 10, 10]]])
    assert match(anchors, boxes, torch.tensor([[0, 0]])).tolist() == [[1, 0, -1]]


def test_a_free_anchor_finds_the_box_that_it_fits_best_though_hardly_better() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 11]]])
    anchors = torch.cat((boxes[0], torch.tensor([[0.0, 0, 10, 20]])))  # IoUs of .5 and .55
    assert match(anchors, boxes, torch.tensor([[0, 0]])).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(("threshold", "second"), [(0.499, 0), (0.5, 0), (0.501, NO_BOX)])
def test_an_iou_of_the_threshold_is_enough(threshold: float, second: int) -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 8]])
    assert match(anchors, anchors[None, :1], torch.tensor([[0]]), threshold).tolist() == [[0, second]]


def test_more_boxes_than_anchors() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6]])
    boxes = torch.tensor([[[float(x), 0, x + 4, 4] for x in (3, 0, 1, 2)]])
    assert sorted(match(anchors, boxes, torch.zeros(1, 4, dtype=torch.int64))[0].tolist()) == [1, 3]


def test_identical_boxes_have_an_anchor_each() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 40], [9, 9, 12, 12]])
    boxes = torch.tensor([0.0, 0, 4, 4]).expand(1, 3, 4)
    assert match(anchors, boxes, torch.zeros(1, 3, dtype=torch.int64)).tolist() == [[0, 1, 2, -1]]


def test_a_box_that_no_anchor_overlaps_has_none() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])
    boxes = torch.tensor([[[0.0, 4, 4, 8], [-9, -9, -5, -5], [4, 0, 4, 4], [1, 1, 1, 1], [1e6, 1e6, 2e6, 2e6]]])
    targets = assign(anchors, boxes, torch.zeros(1, 5, dtype=torch.int64), threshold=0.0)
    assert not targets.classes.any()
    assert not targets.offsets.any()


def test_a_batch_without_boxes() -> None:
    targets = assign(BOOK_ANCHORS, torch.zeros(3, 2, 4), torch.full((3, 2), -1))
    assert targets.classes.shape == (3, 5)
    assert targets.offsets.shape == (3, 5, 4)
    assert not targets.classes.any()
    assert not targets.offsets.any()


@settings(deadline=None)
@given(st.lists(box, min_size=1, max_size=6), anchor_lists)
def test_iou_is_that_of_plain_python(boxes: list[Corners], anchors: list[Corners]) -> None:
    found = pairwise_iou(torch.tensor(boxes).float(), torch.tensor(anchors).float())
    expected = [[float(plain_iou(one, other)) for other in anchors] for one in boxes]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_no_gradient_flows_into_boxes_or_anchors() -> None:
    boxes = BOOK_BOXES.clone().requires_grad_()
    assert not assign(BOOK_ANCHORS, boxes, torch.tensor([[0, 1]])).offsets.requires_grad
