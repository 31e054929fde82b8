"""The losses of detection against loops over images and anchors in float64."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from leyden_plugins.detection.losses import (
    anchor_box_loss,
    anchor_cross_entropy,
    focal_loss,
    mean_over_anchors,
    mean_over_positives,
    with_hard_negatives,
)
from leyden_plugins.detection.matching import Targets


class Scene(NamedTuple):
    """What is said of anchors, and what should be: logits (4, 12, 3), offsets (4, 12, 4)."""

    logits: Tensor
    offsets: Tensor
    targets: Targets


@pytest.fixture
def scene() -> Scene:
    """Images of which 4, 1, none and all anchors have a box."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.zeros(4, 12, dtype=torch.int64)
    classes[0, [1, 2, 7, 11]] = torch.tensor([1, 2, 2, 1])
    classes[1, 5] = 2
    classes[3] = torch.randint(1, 3, (12,), generator=generator)
    logits, offsets, wanted = (2 * torch.randn(4, 12, size, generator=generator) for size in (3, 4, 4))
    return Scene(logits, offsets, Targets(classes, wanted))


def plain_cross_entropy(scene: Scene) -> list[list[float]]:
    found = []
    for logits, classes in zip(scene.logits.double().numpy(), scene.targets.classes.tolist(), strict=True):
        found.append(
            [np.log(np.exp(row).sum()).item() - row[label].item() for row, label in zip(logits, classes, strict=True)]
        )
    return found


def plain_box_losses(scene: Scene, kind: str) -> list[list[float]]:
    found = []
    for image in range(4):
        row = []
        for anchor in range(12):
            total = 0.0
            for said, true in zip(scene.offsets[image, anchor], scene.targets.offsets[image, anchor], strict=True):
                error = abs(said.item() - true.item())
                total += error if kind == "l1" or error >= 1 else error**2 / 2
                total -= 0.5 if kind == "smooth_l1" and error >= 1 else 0
            row.append(total if scene.targets.classes[image, anchor] > 0 else 0.0)
        found.append(row)
    return found


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_each_anchor(scene: Scene) -> None:
    close(anchor_cross_entropy(scene.logits, scene.targets.classes), plain_cross_entropy(scene))


@pytest.mark.parametrize("kind", ["l1", "smooth_l1"])
def test_box_losses_are_sums_over_the_offsets_of_anchors_with_a_box(scene: Scene, kind: Any) -> None:
    expected = plain_box_losses(scene, kind)
    assert any(value > 0 for row in expected for value in row)
    close(anchor_box_loss(scene.offsets, scene.targets, kind), expected)


def test_what_is_said_of_the_background_s_offsets_does_not_matter(scene: Scene) -> None:
    offsets = torch.where((scene.targets.classes == 0)[..., None], 1e6, scene.offsets)
    found, expected = (anchor_box_loss(each, scene.targets, "l1") for each in (offsets, scene.offsets))
    assert torch.equal(found, expected)


def test_focal_loss_of_each_anchor(scene: Scene) -> None:
    expected = [[(1 - math.exp(-nats)) ** 2 * nats for nats in row] for row in plain_cross_entropy(scene)]
    close(focal_loss(scene.logits, scene.targets.classes), expected)


def test_an_anchor_that_is_certain_gives_focal_loss_and_gradient_0() -> None:
    logits = torch.tensor([[[200.0, 0.0], [0.0, 200.0]]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[0, 1]])).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(1, 2, 2))


def test_means_over_all_anchors_are_the_book_s_loss(scene: Scene) -> None:
    """As section 14.7.2.1 writes it: the mean over all anchors, and over all offsets with those of no box masked."""
    said, true = (each.double() for each in (scene.offsets.flatten(1), scene.targets.offsets.flatten(1)))
    masks = (scene.targets.classes > 0).double().repeat_interleave(4, dim=1)
    expected = torch.tensor(plain_cross_entropy(scene)).mean(dim=1) + (said * masks - true * masks).abs().mean(dim=1)
    box_losses = anchor_box_loss(scene.offsets, scene.targets, "l1")
    class_losses = anchor_cross_entropy(scene.logits, scene.targets.classes)
    close(mean_over_anchors(class_losses, box_losses), expected.tolist())


def test_sums_over_the_number_of_anchors_with_a_box(scene: Scene) -> None:
    class_losses, box_losses = plain_cross_entropy(scene), plain_box_losses(scene, "smooth_l1")
    rows = zip(class_losses, box_losses, (4, 1, 1, 12), strict=True)
    expected = [(sum(of_classes) + sum(of_boxes)) / count for of_classes, of_boxes, count in rows]
    found = mean_over_positives(torch.tensor(class_losses), torch.tensor(box_losses), scene.targets.classes)
    close(found, expected)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.6, 3.0, 1000.0])
def test_hard_negatives_are_the_first_when_sorted(scene: Scene, ratio: float) -> None:
    class_losses, box_losses = plain_cross_entropy(scene), plain_box_losses(scene, "l1")
    expected = []
    for image, classes in enumerate(scene.targets.classes.tolist()):
        positives = [anchor for anchor in range(12) if classes[anchor] > 0]
        negatives = sorted((class_losses[image][a] for a in range(12) if a not in positives), reverse=True)
        count = max(1, len(positives))
        total = sum(class_losses[image][a] + box_losses[image][a] for a in positives)
        expected.append((total + sum(negatives[: math.ceil(ratio * count)])) / count)
    losses = (torch.tensor(each) for each in (class_losses, box_losses))
    close(with_hard_negatives(*losses, scene.targets.classes, ratio), expected)


def test_only_hard_negatives_have_a_gradient(scene: Scene) -> None:
    logits = scene.logits.requires_grad_()
    class_losses = anchor_cross_entropy(logits, scene.targets.classes)
    with_hard_negatives(class_losses, torch.zeros(4, 12), scene.targets.classes, 2.0).sum().backward()
    assert logits.grad is not None
    learnt = logits.grad.abs().sum(dim=2) > 0
    assert learnt.sum(dim=1).tolist() == [4 + 8, 1 + 2, 2, 12]
    assert learnt[scene.targets.classes > 0].all()


LOSSES: dict[str, Callable[[Scene], Tensor]] = {
    "hard negatives": lambda scene: with_hard_negatives(
        anchor_cross_entropy(scene.logits, scene.targets.classes),
        anchor_box_loss(scene.offsets, scene.targets, "smooth_l1"),
        scene.targets.classes,
        3.0,
    ),
    "all anchors": lambda scene: mean_over_anchors(
        anchor_cross_entropy(scene.logits, scene.targets.classes), anchor_box_loss(scene.offsets, scene.targets, "l1")
    ),
    "focal": lambda scene: mean_over_positives(
        focal_loss(scene.logits, scene.targets.classes),
        anchor_box_loss(scene.offsets, scene.targets, "l1"),
        scene.targets.classes,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_s_loss_is_the_same_alone_and_in_any_batch(scene: Scene, name: str) -> None:
    together = LOSSES[name](scene)
    assert together.shape == (4,)
    for order in ([0], [1], [2], [3], [3, 1], [2, 0, 3]):
        targets = Targets(scene.targets.classes[order], scene.targets.offsets[order])
        part = LOSSES[name](Scene(scene.logits[order], scene.offsets[order], targets))
        torch.testing.assert_close(part, together[order])


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_without_boxes_teaches_background_only(scene: Scene, name: str) -> None:
    logits, offsets = (each[2:3].clone().requires_grad_() for each in (scene.logits, scene.offsets))
    targets = Targets(scene.targets.classes[2:3], torch.zeros(1, 12, 4))
    loss = LOSSES[name](Scene(logits, offsets, targets))
    loss.sum().backward()
    assert loss.item() > 0
    assert logits.grad is not None
    assert offsets.grad is not None
    assert not offsets.grad.any()
    assert logits.grad.isfinite().all()
    assert (logits.grad[..., 0] <= 0).all(), "more background"
    assert logits.grad[..., 0].any()
