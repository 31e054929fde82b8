"""Trunks: the convolutional part of a classification network, which gives feature maps instead of logits."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from leyden.options import require_positive
from leyden.pretrained import (
    change_channels,
    create_timm_network,
    first_conv,
    load_weights,
    read_state_dict,
    require_timm_network,
    torchvision_state_dict,
    torchvision_weights,
    unknown_network,
    weights_file,
)

TIMM = "timm/"
RESNETS = ("resnet", "resnext", "wide_resnet")  # how the names of torchvision's residual networks begin
RESNET_STRIDES = {"relu": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}  # behind which layer; He, table 1


class Trunk(nn.Module):
    """Any residual network of torchvision, or any convolutional network of timm, without pooling and classifier.

    Trained weights for three channels fit any number of channels: the kernels of the first convolution are
    summed for one channel, and repeated and rescaled for others. Layers behind the deepest map are left out or, where
    timm keeps them, not trained.

    Args:
        in_channels: channels of an image.
        trunk: the network's name in torchvision, such as resnet18, or timm/NAME for one of timm.
        weights: none for random weights; a name of torchvision, such as DEFAULT or ResNet18_Weights.DEFAULT, or for
            timm `pretrained`, which is downloaded once; or the path of the state dict of the whole network (.pth,
            .safetensors), with or without its classifier. With weights, images are to be normalized as for their
            training.
        strides: how many pixels of the image, in each direction, a place of each map stands for; ascending.

    Attributes:
        channels: of each map.

    Shape:
        (B, in_channels, H, W), of any H and W, to a list of (B, channels[i], ceil(H / strides[i]), ceil(W /
        strides[i])). Images are padded with zeros, on the right and below, to a multiple of the last stride.

    Raises:
        ValueError: a size below 1, an unknown name, strides that the network does not have, a network that does not
            give such maps for any size of images, unknown weights, or a file that does not fit the network.
        ImportError: timm is not installed.
        OSError: weights that cannot be downloaded.
    """

    def __init__(
        self,
        in_channels: int,
        trunk: str = "resnet18",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16, 32),
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, strides=strides)
        if sorted(set(strides)) != list(strides):
            raise ValueError(f"strides is {list(strides)}, expected ascending numbers.")
        build = _timm_layers if trunk.startswith(TIMM) else _resnet_layers
        self.layers = build(in_channels, trunk, weights, strides)
        self.strides = tuple(strides)
        self.channels = _channels(self.layers, in_channels, trunk, self.strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        maps = self.layers(pad_to_multiple(images, self.strides[-1]))
        pairs = zip(maps, self.strides, strict=True)
        return [found[..., : -(-height // stride), : -(-width // stride)] for found, stride in pairs]


def pad_to_multiple(images: Tensor, stride: int) -> Tensor:
    """Images (..., H, W) with zeros on the right and below, so that the stride divides H and W."""
    height, width = images.shape[-2:]
    if height % stride == 0 and width % stride == 0:
        return images  # F.pad would copy them
    # in a form that torch.compile can follow when sizes vary: not -width % stride
    right, below = (-(-side // stride) * stride - side for side in (width, height))
    return F.pad(images, (0, right, 0, below))


class ResNetLayers(nn.Sequential):
    """The layers of a torchvision ResNet up to the deepest map that is wanted; gives the maps behind `wanted`."""

    def __init__(self, network: nn.Module, wanted: Sequence[str]) -> None:
        super().__init__()
        self.wanted = tuple(wanted)
        for name, layer in network.named_children():
            self.add_module(name, layer)
            if name == wanted[-1]:
                break

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.wanted:
                maps.append(x)
        return maps


def _resnet_layers(in_channels: int, trunk: str, weights: str | None, strides: Sequence[int]) -> nn.Module:
    known = [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(RESNETS)]
    if trunk not in known:
        raise unknown_network(trunk, known, f"{', '.join(known)}, or {TIMM}NAME", "trunk")
    named = None if weights is None else torchvision_weights(trunk, weights)
    _require_strides(trunk, strides, RESNET_STRIDES.values())
    network: nn.Module = torchvision.models.get_model(trunk)
    change_channels(network, "conv1", in_channels)
    layers = ResNetLayers(network, [name for name, stride in RESNET_STRIDES.items() if stride in strides])
    if weights is not None:
        _load(layers, network, torchvision_state_dict(weights, named), f"{weights!r} for the trunk {trunk}")
    return layers


def _timm_layers(in_channels: int, trunk: str, weights: str | None, strides: Sequence[int]) -> nn.Module:
    name = trunk.removeprefix(TIMM)
    require_timm_network(name, weights, f"NAME in trunk {TIMM}NAME")
    pretrained = weights == "pretrained"
    path = None if weights is None or pretrained else weights_file(weights, ["pretrained"])
    try:
        info: Any = create_timm_network(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise ValueError(f"trunk is {trunk!r}, which cannot be one: timm has no feature maps of it.") from error
    places = dict(zip(info.reduction(), info.out_indices, strict=True))  # of several maps of a stride the last
    _require_strides(trunk, strides, places)
    wanted = tuple(places[stride] for stride in strides)
    layers = create_timm_network(name, pretrained, in_chans=in_channels, features_only=True, out_indices=wanted)
    if path is not None:
        whole = create_timm_network(name, in_chans=in_channels)
        _load(layers, whole, read_state_dict(path), f"{weights!r} for the trunk {trunk}")
    return layers


def _require_strides(trunk: str, strides: Sequence[int], available: Collection[int]) -> None:
    if missing := [stride for stride in strides if stride not in available]:
        raise ValueError(
            f"trunk is {trunk!r}, which has no feature maps of stride {', '.join(map(str, missing))}, "
            f"only of {', '.join(map(str, available))}."
        )


def _load(layers: nn.Module, network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load into the trunk's layers what the state dict of the whole network says of them."""
    names = {_flat(name): name for name in layers.state_dict()}
    left_out = {name for name in network.state_dict() if _flat(name) not in names}
    state = {names.get(_flat(name), name): value for name, value in state.items() if name not in left_out}
    load_weights(layers, state, [first_conv(layers)], [], source)


def _flat(name: str) -> str:
    # timm takes layers out of their containers: stages.0.weight may become stages_0.weight or model.stages.0.weight.
    return name.removeprefix("model.").replace(".", "_")


@torch.enable_grad()
def _channels(layers: nn.Module, in_channels: int, trunk: str, strides: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of each map, found by trying. Parameters that no map depends on are frozen then."""
    height, width = 2 * strides[-1], 3 * strides[-1]
    expected = [(height // stride, width // stride) for stride in strides]
    try:
        maps: list[Tensor] = layers.eval()(torch.zeros(1, in_channels, height, width))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"trunk is {trunk!r}, which cannot be one: it takes no {height}x{width} images.") from error
    found = [tuple(x.shape[2:]) for x in maps]
    if found != expected:
        raise ValueError(
            f"trunk is {trunk!r}, which cannot be one: of {height}x{width} images it makes maps of {found}, "
            f"expected {expected}."
        )
    _freeze_unused(layers, torch.stack([x.sum() for x in maps]).sum())
    layers.train()
    return tuple(x.shape[1] for x in maps)


def _freeze_unused(layers: nn.Module, total: Tensor) -> None:
    # Training in several processes stops at a parameter that waits for a gradient in vain.
    if not total.requires_grad:  # built in inference mode, where nothing is trained
        return
    parameters = [parameter for parameter in layers.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
