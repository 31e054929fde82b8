"""What the classification networks share: activations and initialisation."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from leyden.options import require_choice

Activation = Literal["relu", "sigmoid", "tanh"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def activation_layer(name: str) -> nn.Module:
    """The activation of that name, as a layer."""
    require_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]()


class GridAvgPool(nn.AdaptiveAvgPool2d):
    """Average-pools a feature map to `size` x `size`; a map that has this size already is passed on."""

    def __init__(self, size: int) -> None:
        super().__init__((size, size))

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-2:] == self.output_size:
            return input
        return F.adaptive_avg_pool2d(input, self.output_size)


class NormalLinear(nn.Linear):
    """Linear layer with weights from N(0, 0.01²) and zero biases."""

    def reset_parameters(self) -> None:
        _init_normal(self)


class LazyNormalLinear(nn.LazyLinear):
    """NormalLinear that takes its number of inputs from the first batch; from then on a plain nn.Linear."""

    def reset_parameters(self) -> None:
        # torch also calls this while the layer is still a placeholder without weights.
        if not self.has_uninitialized_params() and self.in_features != 0:
            _init_normal(self)


def _init_normal(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def init_xavier(network: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers anew, by Xavier's uniform rule; biases stay."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
