"""Networks of torchvision."""

import re
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from leyden.options import require_positive
from leyden.pretrained import (
    change_channels,
    first_conv,
    last_layer,
    load_weights,
    torchvision_state_dict,
    torchvision_weights,
    unknown_network,
)

WITH_AUXILIARY_LOGITS = ("googlenet", "inception_v3")


class Torchvision(nn.Module):
    """Any classification network of torchvision, with random or trained weights.

    Trained weights for three channels fit any number of channels: the kernels of the first convolution are
    summed for one channel, and repeated and rescaled for others. With another number of classes than the
    weights have, the last layer starts at random. Auxiliary classifiers are left out.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        name: the network's name in torchvision, such as resnet18 or efficientnet_b0.
        weights: none for random weights; a name of torchvision, such as DEFAULT, IMAGENET1K_V1 or
            ResNet18_Weights.DEFAULT, which is downloaded once; or the path of a state dict (.pth). With weights,
            images are to be normalized as for their training.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes); H and W as the network demands.

    Raises:
        ValueError: a size below 1, an unknown name, unknown weights, or a file that does not fit the network.
        OSError: weights that cannot be downloaded.

    Source:
        torchvision.models names the paper of each network. Dive into Deep Learning, 14.2 (fine-tuning).
    """

    def __init__(self, in_channels: int, num_classes: int, name: str = "resnet18", weights: str | None = None) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        if name not in (known := torchvision.models.list_models(module=torchvision.models)):
            raise unknown_network(name, known, "torchvision.models.list_models()")
        named = None if weights is None else torchvision_weights(name, weights)
        options = _options(name, in_channels, weights, named)
        self.network: nn.Module = torchvision.models.get_model(name, num_classes=num_classes, **options)
        stem = first_conv(self.network)
        change_channels(self.network, stem, in_channels)
        if weights is not None:
            state = _state_dict(name, weights, named)
            source = f"{weights!r} for the network {name} of torchvision"
            load_weights(self.network, state, [stem], [last_layer(self.network)], source)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def _options(name: str, in_channels: int, weights: str | None, named: WeightsEnum | None) -> dict[str, Any]:
    if name in WITH_AUXILIARY_LOGITS:
        # Their trained weights expect inputs rescaled from the usual normalization of three channels.
        rescale = weights is not None and in_channels == 3
        return {"aux_logits": False, "transform_input": rescale, "init_weights": weights is None}
    if name.startswith("vit_") and named is not None:
        return {"image_size": named.meta["min_size"][0]}
    return {}


def _state_dict(name: str, weights: str, named: WeightsEnum | None) -> dict[str, Tensor]:
    state = torchvision_state_dict(weights, named)
    for key in list(state):
        if name in WITH_AUXILIARY_LOGITS and key.lower().startswith("aux"):
            del state[key]
        # torchvision's own DenseNet files are older than its names for the layers.
        modern = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
        if modern != key:
            state[modern] = state.pop(key)
    return state
