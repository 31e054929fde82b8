"""What a painted picture is judged by: content, style and total variation, each summed up for each picture."""

from collections.abc import Mapping

import torch
from torch import Tensor

Maps = Mapping[str, Tensor]  # feature maps (B, C, H, W), or Gram matrices (B, C, C), of layers
Weights = Mapping[str, float]  # of layers


def gram_matrix(maps: Tensor) -> Tensor:
    """How strongly the channels of a layer respond together: (B, C, H, W) to (B, C, C), divided by C * H * W.

    Source: Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016, eq. 3, divided as
    in Zhang et al., "Dive into Deep Learning", section 14.12. Not below float32: it sums many products.
    """
    features = _whole(maps).flatten(2)
    with torch.autocast(features.device.type, enabled=False):
        return features @ features.transpose(1, 2) / features[0].numel()


def content_loss(maps: Maps, targets: Maps, weights: Weights) -> Tensor:
    """How far the content is off: (B,), over the layers the weighted sum of the mean squared differences of the maps.

    Source: "Dive into Deep Learning", section 14.12; Gatys et al., 2016, eq. 1, takes half the sum.
    """
    return _squared_differences({layer: maps[layer] for layer in weights}, targets, weights)


def style_loss(maps: Maps, grams: Maps, weights: Weights) -> Tensor:
    """How far the style is off: (B,), over the layers the weighted sum of the mean squared differences of the Grams.

    grams: of the style's maps, (1, C, C) or (B, C, C). Source: "Dive into Deep Learning", section 14.12; Gatys et al.,
    2016, eq. 4 and 5.
    """
    return _squared_differences({layer: gram_matrix(maps[layer]) for layer in weights}, grams, weights)


def total_variation(images: Tensor) -> Tensor:
    """How rough images (B, C, H, W) are: (B,), half the mean difference of neighbours above each other plus half that
    of neighbours beside each other, without sign.

    Source: "Dive into Deep Learning", section 14.12. An image of one row or column has no neighbours in one direction.
    """
    images = _whole(images)
    steps = (images.diff(dim=2), images.diff(dim=3))
    return sum((step.abs().mean(dim=(1, 2, 3)) / 2 for step in steps if step.numel()), images.new_zeros(len(images)))


def _squared_differences(found: Maps, targets: Maps, weights: Weights) -> Tensor:
    losses = [
        weight * (_whole(found[layer]) - _whole(targets[layer])).square().flatten(1).mean(dim=1)
        for layer, weight in weights.items()
    ]
    return torch.stack(losses).sum(dim=0)


def _whole(tensor: Tensor) -> Tensor:
    """At least float32: under autocast, maps may be bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
