"""The metrics of segmentation against a confusion matrix in plain numpy, and against torchmetrics."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from leyden.batches import VOID
from leyden.metrics import names_of_classes
from leyden_plugins.segmentation.metrics import (
    DetailedScores,
    SegmentationScores,
    count_pixels,
    intersection_over_union,
    most_likely,
)

NAMES = ("background", "cat", "potted plant", "eel", "Eel")


def random_masks(seed: int, present: tuple[int, ...], void: float) -> tuple[Tensor, Tensor]:
    """Predicted classes and true masks of seven images (7, 9, 11): of these classes only, with a share of void."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.tensor(present)
    predicted, truth = classes[torch.randint(0, len(present), (2, 7, 9, 11), generator=generator)]
    agree = torch.rand(truth.shape, generator=generator) < 0.5
    masks = torch.where(agree, predicted, truth).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < void] = VOID
    return predicted, masks


def plain_scores(predicted: np.ndarray, masks: np.ndarray, num_classes: int) -> dict[str, Any]:
    """The same scores one pixel after the other."""
    confusion = [[0] * num_classes for _ in range(num_classes)]
    void = [0] * num_classes
    for guess, true in zip(predicted.ravel().tolist(), masks.ravel().tolist(), strict=True):
        if true == VOID:
            void[guess] += 1
        else:
            confusion[true][guess] += 1
    ious = {}
    for index in range(num_classes):
        row, column = sum(confusion[index]), sum(line[index] for line in confusion)
        if union := row + column - confusion[index][index]:
            ious[index] = confusion[index][index] / union
    right, labelled = sum(confusion[index][index] for index in range(num_classes)), sum(map(sum, confusion))
    return {
        "mean_iou": sum(ious.values()) / len(ious) if ious else float("nan"),
        "pixel_accuracy": right / labelled if labelled else float("nan"),
        "pixel_accuracy_book": (right + void[0]) / (labelled + sum(void)),
        "ious": ious,
        "counts": [*confusion, void],
    }


CASES = {
    "all classes": ((0, 1, 2, 3, 4), 0.1),
    "two classes absent": ((0, 2, 4), 0.1),
    "the first class absent": ((1, 3), 0.0),
    "one class": ((3,), 0.2),
    "nothing but void": ((0, 1, 2), 1.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_scores_are_those_of_plain_python(case: str, batch_size: int) -> None:
    predicted, masks = random_masks(0, *CASES[case])
    expected = plain_scores(predicted.numpy(), masks.numpy(), 5)
    metric = DetailedScores(NAMES)
    for start in range(0, 7, batch_size):
        part = slice(start, start + batch_size)
        metric.update(count_pixels(predicted[part], masks[part], 5)[None])
    found = metric.compute()
    for name in ("mean_iou", "pixel_accuracy", "pixel_accuracy_book"):
        assert found[name].item() == pytest.approx(expected[name], nan_ok=True)
    assert found["confusion_matrix"].tolist() == expected["counts"]
    names = names_of_classes("iou", NAMES)
    ious = {names.index(name): value.item() for name, value in found.items() if name.startswith("iou_")}
    assert ious == pytest.approx(expected["ious"]), "a class that does not occur has none"


@pytest.mark.parametrize("case", [case for case in CASES if case != "nothing but void"])
def test_scores_are_those_of_torchmetrics(case: str) -> None:
    predicted, masks = random_masks(1, *CASES[case])
    targets = masks.long()
    counts = count_pixels(predicted, masks, 5)
    metric = SegmentationScores(5)
    metric.update(counts[None])
    found, kwargs = metric.compute(), {"num_classes": 5, "ignore_index": VOID}
    jaccard = MulticlassJaccardIndex(average="macro", **kwargs)
    assert found["mean_iou"].item() == pytest.approx(jaccard(predicted, targets).item())
    accuracy = MulticlassAccuracy(average="micro", **kwargs)
    assert found["pixel_accuracy"].item() == pytest.approx(accuracy(predicted, targets).item())
    assert torch.equal(counts[:-1], MulticlassConfusionMatrix(**kwargs)(predicted, targets))


def test_the_book_takes_void_for_the_first_class() -> None:
    predicted = torch.tensor([0, 0, 1, 1, 2])
    masks = torch.tensor([0, VOID, VOID, 1, 1], dtype=torch.uint8)
    metric = SegmentationScores(3)
    metric.update(count_pixels(predicted, masks, 3)[None])
    found = metric.compute()
    assert found["pixel_accuracy"].item() == pytest.approx(2 / 3)
    assert found["pixel_accuracy_book"].item() == pytest.approx(3 / 5)


def test_the_mean_is_over_pixels_and_not_over_batches() -> None:
    """A batch of one pixel, all wrong, and one of 99, all right: each class's IoU is of the whole."""
    metric = SegmentationScores(2)
    for predicted, true in ((torch.ones(1, dtype=torch.int64), 0), (torch.zeros(99, dtype=torch.int64), 0)):
        metric.update(count_pixels(predicted, torch.full_like(predicted, true, dtype=torch.uint8), 2)[None])
    found = metric.compute()
    assert found["mean_iou"].item() == pytest.approx((0.99 + 0) / 2)
    assert found["pixel_accuracy"].item() == pytest.approx(0.99)


def test_counts_stay_exact_beyond_what_a_float_can_count() -> None:
    metric = SegmentationScores(2).to(torch.bfloat16)
    many = torch.zeros(1, 3, 2, dtype=torch.int64)
    many[0, 0, 0] = 2**24
    one = torch.zeros_like(many)
    one[0, 0, 0] = 1
    for counts in (many, one, many, one):
        metric.update(counts)
    assert metric.counts.dtype == torch.int64
    assert metric.counts[0, 0] == 2**25 + 2


def test_in_a_collection_the_scores_have_their_own_names() -> None:
    collection = MetricCollection({"scores": DetailedScores(("sky", "road"))})
    collection.update(count_pixels(torch.tensor([0, 1]), torch.tensor([0, 0], dtype=torch.uint8), 2)[None])
    found = collection.compute()
    names = {"mean_iou", "pixel_accuracy", "pixel_accuracy_book", "iou_sky", "iou_road", "confusion_matrix"}
    assert set(found) == names
    collection.reset()
    assert found["confusion_matrix"].tolist() == [[1, 1], [0, 0], [0, 0]], "what was computed outlives a reset"


def test_absent_classes_have_no_iou() -> None:
    ious = intersection_over_union(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0], [9, 9, 9]]))
    torch.testing.assert_close(ious, torch.tensor([3 / 4, 4 / 5, torch.nan]), equal_nan=True)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 254])
def test_any_number_of_classes_can_be_counted(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, num_classes, (5000,), generator=generator)
    masks = torch.randint(0, num_classes, (5000,), generator=generator).to(torch.uint8)
    masks[::7] = VOID
    counts = count_pixels(predicted, masks, num_classes)
    expected = np.zeros((num_classes + 1, num_classes), dtype=int)
    np.add.at(expected, (np.minimum(masks.numpy(), num_classes), predicted.numpy()), 1)
    assert counts.tolist() == expected.tolist()
    assert counts.dtype == torch.int64


def test_predicted_masks_are_counted_as_they_are_kept() -> None:
    """uint8 predictions: 200 times 201 does not fit, and must not wrap around."""
    mask = torch.tensor([200], dtype=torch.uint8)
    assert count_pixels(mask, mask, 201)[200, 200] == 1


def test_the_most_likely_class_has_the_largest_logit() -> None:
    logits = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(most_likely(logits), logits.argmax(dim=1))
