"""Offsets: how a box differs from its anchor, in the units that a network learns best."""

import math

import torch
from torch import Tensor

CENTRE_UNIT, EXTENT_UNIT = 0.1, 0.2  # Liu et al. 2016 in their code; Dive into Deep Learning, 14.4
LARGEST_GROWTH = math.log(1000 / 16)  # of a side: what a network says before it has learnt must not overflow


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """The offsets (..., 4) float32 from anchors to boxes, both (..., 4) xyxy with width and height above 0.

    Distance of the centres over the anchor's width and height, in units of 0.1; logarithm of the quotients of widths
    and heights, in units of 0.2.
    """
    centres, extents = _centres_and_extents(anchors)
    of_boxes, extents_of_boxes = _centres_and_extents(boxes)
    moved = (of_boxes - centres) / (CENTRE_UNIT * extents)
    grown = (extents_of_boxes / extents).log() / EXTENT_UNIT
    return torch.cat((moved, grown), dim=-1)


def decode(anchors: Tensor, offsets: Tensor) -> Tensor:
    """The boxes (..., 4) xyxy of which `encode` gives these offsets; sides of at most 62.5 times the anchor's."""
    centres, extents = _centres_and_extents(anchors)
    centres = centres + offsets[..., :2] * CENTRE_UNIT * extents
    extents = extents * (offsets[..., 2:] * EXTENT_UNIT).clamp(max=LARGEST_GROWTH).exp()
    return torch.cat((centres - extents / 2, centres + extents / 2), dim=-1)


def _centres_and_extents(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
