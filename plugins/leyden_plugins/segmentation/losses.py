"""The losses of segmentation, summed over labelled pixels: what is void counts nowhere."""

import torch
import torch.nn.functional as F
from torch import Tensor

from leyden.batches import VOID


def summed_cross_entropy(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The cross-entropy of all labelled pixels, each times the weight of its true class: a scalar, in nats.

    logits: (B, K, H, W) float32. masks: (B, H, W) uint8 classes, VOID where unknown. class_weights: (K,) float32.
    0, with gradients of 0, where no pixel is labelled.
    """
    return F.cross_entropy(logits, masks.long(), class_weights, ignore_index=VOID, reduction="sum")


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The soft Dice loss of each image (B,): 1 minus the mean Dice coefficient of the classes that it truly holds.

    Of a class with probabilities p and truth g (0 or 1) it is 2 sum(p g) / (sum(p^2) + sum(g^2)), over the labelled
    pixels of the image. logits: (B, K, H, W) float32. masks: (B, H, W) uint8 classes, VOID where unknown. 0 for an
    image without a labelled pixel.

    Source:
        Milletari, Navab, Ahmadi, "V-Net: Fully convolutional neural networks for volumetric medical image
        segmentation", 2016, section 3, for a single class.
    """
    probabilities = logits.softmax(dim=1) * (masks != VOID)[:, None]
    classes = torch.arange(logits.shape[1], device=masks.device)
    truth = masks[:, None] == classes[:, None, None]  # (B, K, H, W) bool, a quarter of what floats would take
    pixels = truth.sum(dim=(2, 3))
    both = (probabilities * truth).sum(dim=(2, 3))
    # a class that is present has a pixel at least: what is raised to 1 is not counted
    coefficients = 2 * both / (probabilities.square().sum(dim=(2, 3)) + pixels).clamp(min=1)
    present = pixels > 0
    return ((1 - coefficients) * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
