"""Networks of torchvision."""

import re
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from leyden_plugins.classification.networks._layers import require_positive
from leyden_plugins.classification.networks._pretrained import (
    adapt_kernels,
    first_conv,
    last_layer,
    load_weights,
    read_state_dict,
    unknown_network,
    weights_file,
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
        named = None if weights is None else _named_weights(name, weights)
        options = _options(name, in_channels, weights, named)
        self.network: nn.Module = torchvision.models.get_model(name, num_classes=num_classes, **options)
        stem = first_conv(self.network)
        _change_channels(self.network, stem, in_channels)
        if weights is not None:
            state = _state_dict(name, weights, named)
            source = f"{weights!r} for the network {name} of torchvision"
            load_weights(self.network, state, [stem], [last_layer(self.network)], source)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def _named_weights(name: str, weights: str) -> WeightsEnum | None:
    known = torchvision.models.get_model_weights(name)
    found: WeightsEnum | None = known.__members__.get(weights.removeprefix(f"{known.__name__}."))
    if found is None:
        weights_file(weights, list(known.__members__))
    return found


def _options(name: str, in_channels: int, weights: str | None, named: WeightsEnum | None) -> dict[str, Any]:
    if name in WITH_AUXILIARY_LOGITS:
        # Their trained weights expect inputs rescaled from the usual normalization of three channels.
        rescale = weights is not None and in_channels == 3
        return {"aux_logits": False, "transform_input": rescale, "init_weights": weights is None}
    if name.startswith("vit_") and named is not None:
        return {"image_size": named.meta["min_size"][0]}
    return {}


def _change_channels(network: nn.Module, stem: str, in_channels: int) -> None:
    conv = network.get_submodule(stem)
    assert isinstance(conv, nn.Conv2d)
    if conv.in_channels != in_channels:
        # The sum of random kernels keeps the variance of the output, as the network's own start does.
        conv.weight = nn.Parameter(adapt_kernels(conv.weight.detach(), in_channels))
        conv.in_channels = in_channels


def _state_dict(name: str, weights: str, named: WeightsEnum | None) -> dict[str, Tensor]:
    state = _downloaded(named) if named is not None else read_state_dict(weights_file(weights, ()))
    for key in list(state):
        if name in WITH_AUXILIARY_LOGITS and key.lower().startswith("aux"):
            del state[key]
        # torchvision's own DenseNet files are older than its names for the layers.
        modern = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
        if modern != key:
            state[modern] = state.pop(key)
    return state


def _downloaded(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"could not get {weights!r} from {weights.url} ({error}); "
            f"without network access, download the file elsewhere and give its path as weights."
        ) from error
    return state
