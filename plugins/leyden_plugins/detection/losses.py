"""The losses of detection, of each image for itself: no image's loss depends on its neighbours in the batch."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from leyden_plugins.detection.matching import BACKGROUND, Targets

BoxLoss = Literal["l1", "smooth_l1"]
FOCUS = 2.0  # gamma; Lin et al. 2017, section 5.1


def anchor_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each anchor: logits (B, A, K + 1) and classes (B, A) int64 to (B, A)."""
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)


def anchor_box_loss(offsets: Tensor, targets: Targets, kind: BoxLoss) -> Tensor:
    """The sum over the four offsets of each anchor that has a box: (B, A); 0 for the background."""
    measure = F.l1_loss if kind == "l1" else F.smooth_l1_loss
    losses = measure(offsets, targets.offsets, reduction="none").sum(dim=-1)
    return losses.masked_fill(targets.classes == BACKGROUND, 0)


def mean_over_anchors(class_losses: Tensor, box_losses: Tensor) -> Tensor:
    """The loss of each image (B,): the mean over all anchors, and over all of their offsets.

    Source: Dive into Deep Learning, 14.7.
    """
    return class_losses.mean(dim=1) + box_losses.mean(dim=1) / 4


def mean_over_positives(class_losses: Tensor, box_losses: Tensor, classes: Tensor) -> Tensor:
    """The loss of each image (B,): the sum over all anchors, over the number of those that have a box, at least 1."""
    return (class_losses + box_losses).sum(dim=1) / _positives(classes)


def with_hard_negatives(class_losses: Tensor, box_losses: Tensor, classes: Tensor, ratio: float) -> Tensor:
    """The loss of each image (B,), in which of the background only the anchors with the largest losses count.

    They are `ratio` times as many as the anchors that have a box, and as if there was one where there is none. The sum
    is divided by the number of those that have a box, at least 1.

    Source: Liu et al., "SSD: Single shot multibox detector", 2016, section 2.2.
    """
    background = classes == BACKGROUND
    positives = _positives(classes)
    wanted = (ratio * positives).ceil().long().clamp(max=classes.shape[1])
    hardest = class_losses.masked_fill(~background, 0).topk(int(wanted.max()), dim=1).values
    counted = torch.arange(hardest.shape[1], device=hardest.device) < wanted[:, None]
    total = (class_losses.masked_fill(background, 0) + box_losses).sum(dim=1) + (hardest * counted).sum(dim=1)
    return total / positives


def focal_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each anchor times (1 - p)^2, p the probability of the true class: shapes as of the former.

    Source: Lin et al., "Focal loss for dense object detection", 2017, section 3.2, over the classes and the background
    at once.
    """
    losses = anchor_cross_entropy(logits, classes)
    return (1 - (-losses).exp()) ** FOCUS * losses


def _positives(classes: Tensor) -> Tensor:
    """How many anchors of each image have a box, at least 1: (B,) float32."""
    return (classes != BACKGROUND).sum(dim=1).clamp(min=1).float()
