"""Decoding against a greedy loop in plain Python over images, classes and boxes, and against the book's example."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leyden_plugins.detection.decoding import CANDIDATES, Found, clip, find_things

Thing = tuple[float, int, list[float]]  # score, label, box


def plain_iou(one: list[float], other: list[float]) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return across * down / (areas - across * down)


def plain_box(anchor: list[float], offsets: list[float], size: tuple[int, int]) -> list[float]:
    """Decoded and cut at the edges of an image of this height and width."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + offsets[0] * 0.1 * width
    y = (anchor[1] + anchor[3]) / 2 + offsets[1] * 0.1 * height
    width, height = width * math.exp(0.2 * offsets[2]), height * math.exp(0.2 * offsets[3])
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(max(value, 0.0), limit) for value, limit in zip(corners, (*size[::-1], *size[::-1]), strict=True)]


def plain_things(
    logits: Tensor, offsets: Tensor, anchors: Tensor, size: tuple[int, int], threshold: float, nms_iou: float, most: int
) -> list[Thing]:
    """Of one image: logits (A, K + 1), offsets (A, 4), anchors (A, 4)."""
    kept: list[Thing] = []
    for label in range(logits.shape[1] - 1):
        of_class: list[Thing] = []
        for said, moved, anchor in zip(logits.tolist(), offsets.tolist(), anchors.tolist(), strict=True):
            score = math.exp(said[label + 1]) / sum(map(math.exp, said))
            box = plain_box(anchor, moved, size)
            if score > threshold and box[0] < box[2] and box[1] < box[3]:
                of_class.append((score, label, box))
        chosen: list[Thing] = []
        for thing in sorted(of_class, reverse=True):
            if all(plain_iou(thing[2], better[2]) <= nms_iou for better in chosen):
                chosen.append(thing)
        kept += chosen
    return sorted(kept, reverse=True)[:most]


def scene(seed: int, images: int, count: int, num_classes: int) -> dict[str, Tensor]:
    """Anchors that often overlap, within and around images of up to 100 x 80 pixels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 90 - 15
    extents = torch.rand(count, 2, generator=generator) * 40 + 2
    return {
        "logits": 2 * torch.randn(images, count, num_classes + 1, generator=generator),
        "offsets": torch.randn(images, count, 4, generator=generator),
        "anchors": torch.cat((corners, corners + extents), dim=1),
        "sizes": torch.stack([torch.randint(20, side, (images,), generator=generator) for side in (80, 100)], dim=1),
    }


def by_image(found: Found) -> list[list[Thing]]:
    assert found.boxes.shape == (found.counts.sum(), 4)
    assert (found.boxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert (found.labels.dtype, found.counts.dtype) == (torch.int64, torch.int64)
    things = list(zip(found.scores.tolist(), found.labels.tolist(), found.boxes.tolist(), strict=True))
    ends = found.counts.cumsum(0).tolist()
    return [things[end - count : end] for end, count in zip(ends, found.counts.tolist(), strict=True)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 3),
    count=st.integers(1, 20),
    num_classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    nms_iou=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    most=st.sampled_from([1, 3, 100]),
)
def test_things_are_those_of_a_greedy_loop(
    seed: int, images: int, count: int, num_classes: int, threshold: float, nms_iou: float, most: int
) -> None:
    made = scene(seed, images, count, num_classes)
    found = by_image(find_things(**made, score_threshold=threshold, nms_iou=nms_iou, max_detections=most))
    for number, things in enumerate(found):
        size: Any = tuple(made["sizes"][number].tolist())
        said = (made["logits"][number], made["offsets"][number], made["anchors"])
        expected = plain_things(*said, size, threshold, nms_iou, most)
        assert [label for _, label, _ in things] == [label for _, label, _ in expected]
        for (score, _, box), (expected_score, _, expected_box) in zip(things, expected, strict=True):
            assert score == pytest.approx(expected_score, rel=1e-4, abs=1e-6)
            assert box == pytest.approx(expected_box, rel=1e-4, abs=1e-3)


def test_a_batch_gives_what_its_images_give_alone() -> None:
    made = scene(0, images=8, count=60, num_classes=5)
    limits = {"score_threshold": 0.05, "nms_iou": 0.4, "max_detections": 20}
    together = by_image(find_things(**made, **limits))
    assert sum(map(len, together)) > 50
    for number in range(8):
        alone = {name: each if name == "anchors" else each[number : number + 1] for name, each in made.items()}
        assert by_image(find_things(**alone, **limits)) == [together[number]]


def test_things_that_are_equally_certain_are_the_same_in_any_batch() -> None:
    """Probabilities of a network that is certain are 1 in float32, and no longer say which box is the better one."""
    made = scene(1, images=16, count=200, num_classes=2)
    made["logits"] = 20 * made["logits"]
    limits = {"score_threshold": 0.5, "nms_iou": 0.4, "max_detections": 5}
    found = find_things(**made, **limits)
    assert (found.scores == 1).float().mean() > 0.9
    together = by_image(found)
    for number in range(16):
        alone = {name: each if name == "anchors" else each[number : number + 1] for name, each in made.items()}
        assert by_image(find_things(**alone, **limits)) == [together[number]]


@pytest.mark.parametrize("below", [True, False])
def test_the_place_in_a_batch_does_not_blur_overlaps(below: bool) -> None:
    """Two boxes whose IoU is near the limit, as the last of 20 classes, in each of 32 images of 512 pixels."""
    shift = 10 / 3 * (1.0001 if below else 0.9999)
    anchors = torch.tensor([[473.1, 20.0, 483.1, 30.0], [473.1 + shift, 20.0, 483.1 + shift, 30.0]])
    logits = torch.full((32, 2, 21), -9.0)
    logits[:, :, 20] = torch.tensor([5.0, 4.0])
    found = find_things(logits, torch.zeros(32, 2, 4), anchors, torch.full((32, 2), 512), 0.3, 0.5, 100)
    assert found.counts.tolist() == 32 * [2 if below else 1]


def test_the_book_s_example() -> None:
    """Section 14.4.4, in pixels of a picture of 1000 x 1000: of the dog's boxes the best one is kept, and the cat's."""
    anchors = torch.tensor(
        [[0.1, 0.08, 0.52, 0.92], [0.08, 0.2, 0.56, 0.95], [0.15, 0.3, 0.62, 0.91], [0.55, 0.2, 0.9, 0.88]]
    )
    probabilities = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]])
    sizes = torch.tensor([[1000, 1000]])
    found = find_things(probabilities.T.log()[None], torch.zeros(1, 4, 4), 1000 * anchors, sizes, 0.5, 0.5, 100)
    assert found.counts.tolist() == [2]
    order = found.labels.argsort()
    assert found.labels[order].tolist() == [0, 1]
    torch.testing.assert_close(found.scores[order], torch.tensor([0.9, 0.9]))
    torch.testing.assert_close(found.boxes[order], 1000 * anchors[[0, 3]])


def certain(scores: list[list[float]]) -> Tensor:
    """Logits (1, A, K + 1) that give these probabilities to the classes, the rest to the background."""
    probabilities = torch.tensor(scores)
    return torch.cat((1 - probabilities.sum(dim=1, keepdim=True), probabilities), dim=1).log()[None]


def test_boxes_are_cut_at_the_edges_of_their_own_image() -> None:
    anchors = torch.tensor([[-5.0, -5, 200, 200], [30, 10, 60, 20], [60, 0, 70, 10]])
    logits = certain([[0.9], [0.8], [0.7]]).expand(2, -1, -1)
    found = find_things(logits, torch.zeros(2, 3, 4), anchors, torch.tensor([[40, 50], [15, 100]]), 0.1, 0.9, 10)
    assert found.counts.tolist() == [2, 3], "what lies beyond the first image is left out"
    first, second = found.boxes.split([2, 3])
    assert first.tolist() == [[0, 0, 50, 40], [30, 10, 50, 20]]
    assert second.tolist() == [[0, 0, 100, 15], [30, 10, 60, 15], [60, 0, 70, 10]]


def test_clipping() -> None:
    boxes = torch.tensor([[[-3.0, 4, 5, 99]], [[-9, -9, -1, -1]], [[70, 80, 90, 95]]])
    sizes = torch.tensor([[40, 50], [40, 50], [40, 50]])
    assert clip(boxes, sizes).tolist() == [[[0, 4, 5, 40]], [[0, 0, 0, 0]], [[50, 40, 50, 40]]]


def test_the_best_are_kept_in_each_image() -> None:
    anchors = torch.tensor([[20.0 * x, 0, 20 * x + 10, 10] for x in range(4)])
    logits = certain([[0.2, 0.1], [0.3, 0.6], [0.9, 0.05], [0.1, 0.4]]).repeat(3, 1, 1)
    logits[1] = logits[1].flip(0)
    logits[2] = certain([[0.01, 0.01]] * 4)[0]
    found = by_image(find_things(logits, torch.zeros(3, 4, 4), anchors, torch.full((3, 2), 100), 0.05, 0.5, 2))
    assert [[(round(score, 4), label, box[0]) for score, label, box in things] for things in found] == [
        [(0.9, 0, 40), (0.6, 1, 20)],
        [(0.9, 0, 20), (0.6, 1, 40)],
        [],
    ]


@pytest.mark.parametrize(("nms_iou", "expected"), [(0.0, [0, 20, 30]), (0.5, [0, 20, 30]), (1.0, [0, 0, 20, 30])])
def test_boxes_that_are_the_same_or_touch(nms_iou: float, expected: list[float]) -> None:
    """Only a larger IoU than the limit is too much: 0 is no overlap, and 1 leaves all."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10], [30, 0, 40, 10]])
    logits = certain([[0.9], [0.8], [0.7], [0.6]])
    found = find_things(logits, torch.zeros(1, 4, 4), anchors, torch.tensor([[50, 50]]), 0.1, nms_iou, 10)
    assert found.boxes[:, 0].tolist() == expected


def test_one_box_may_show_two_classes() -> None:
    found = find_things(
        certain([[0.3, 0.4]]), torch.zeros(1, 1, 4), torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[9, 9]]), 0.2, 0.5, 9
    )
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == 2 * [[0, 0, 5, 5]]


def test_a_score_must_exceed_the_threshold() -> None:
    anchors, sizes = torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[9, 9]])
    for threshold, count in ((0.4999, 1), (0.5, 0)):
        found = find_things(torch.zeros(1, 1, 2), torch.zeros(1, 1, 4), anchors, sizes, threshold, 0.5, 9)
        assert found.counts.tolist() == [count]


@pytest.mark.parametrize("most", [100, 2 * CANDIDATES])
def test_no_more_than_the_best_candidates_are_looked_at(most: int) -> None:
    count = 3 * CANDIDATES
    anchors = torch.tensor([[10.0 * x, 0, 10 * x + 5, 5] for x in range(count)])
    scores = torch.linspace(0.2, 0.9, count)[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    logits = certain([[score] for score in scores.tolist()])
    found = find_things(logits, torch.zeros(1, count, 4), anchors, torch.tensor([[10, 10 * count]]), 0.1, 0.5, most)
    expected = scores.sort(descending=True)
    assert len(found.scores) == most
    torch.testing.assert_close(found.scores, expected.values[:most])
    assert torch.equal(found.boxes, anchors[expected.indices[:most]])


def test_a_network_that_has_gone_wrong_finds_nothing_and_stops_nothing() -> None:
    made = scene(0, images=2, count=9, num_classes=3)
    made["logits"][0] = math.nan
    made["offsets"][1] = math.nan
    found = find_things(**made, score_threshold=0.0, nms_iou=0.5, max_detections=10)
    assert found.counts.tolist() == [0, 0]


def test_half_precision_is_decoded_in_float32() -> None:
    made = scene(0, images=2, count=9, num_classes=3)
    halved = {**made, "logits": made["logits"].bfloat16(), "offsets": made["offsets"].bfloat16()}
    same = {**made, "logits": halved["logits"].float(), "offsets": halved["offsets"].float()}
    found, expected = (
        find_things(**each, score_threshold=0.1, nms_iou=0.5, max_detections=9) for each in (halved, same)
    )
    assert by_image(found) == by_image(expected)
