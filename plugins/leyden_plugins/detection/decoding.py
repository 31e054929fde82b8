"""Decoding: from what a network says of its anchors to the things that are found."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from leyden_plugins.detection.offsets import decode

CANDIDATES = 400  # boxes of an image with the highest scores that are looked at; Liu et al. 2016 look at as many


class Found(NamedTuple):
    """The things that were found in a batch of images, those of the first image first, in each by falling score.

    boxes: (N, 4) float32 xyxy in pixels. scores: (N,) float32 probabilities. labels: (N,) int64 class indices.
    counts: (B,) int64, how many things each image has.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor


def find_things(
    logits: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    sizes: Tensor,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
) -> Found:
    """Boxes and classes with a probability above a threshold, without those that overlap a better one of their class.

    Of each image the 400 best are looked at, or max_detections where that is more.

    logits: (B, A, K + 1), the background first. offsets: (B, A, 4). anchors: (A, 4) xyxy in pixels. sizes: (B, 2) int64
    height and width of each image: boxes are cut at its edges.
    score_threshold: the probability that is to be exceeded. nms_iou: of two boxes of a class with a larger IoU only the
    better one stays. max_detections: of each image, the best ones.
    """
    scores = logits.float().softmax(dim=-1)[..., 1:]
    batch, _, num_classes = scores.shape
    flat = scores.flatten(1)
    values, cells = flat.topk(min(max(CANDIDATES, max_detections), flat.shape[1]), dim=1)
    places, labels = cells // num_classes, cells % num_classes
    moved = offsets.float().gather(1, places[..., None].expand(-1, -1, 4))
    boxes = clip(decode(anchors[places], moved), sizes)
    image = torch.arange(batch, device=logits.device)[:, None].expand_as(labels)
    chosen = (values > score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    boxes, values, labels, image = boxes[chosen], values[chosen], labels[chosen], image[chosen]
    # in float64: boxes of other images and classes are moved apart, by more than leaves float32 its last bits
    kept = batched_nms(boxes.double(), values.double(), image * num_classes + labels, nms_iou)
    kept = kept.sort().values  # image after image by falling score, as topk gave them; among equals its order too
    counts = torch.bincount(image[kept], minlength=batch)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(kept), device=kept.device) - starts[image[kept]]
    kept = kept[rank < max_detections]
    return Found(boxes[kept], values[kept], labels[kept], counts.clamp(max=max_detections))


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, N, 4) xyxy, cut at the edges of their images, whose height and width are sizes (B, 2)."""
    limits = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limits)
