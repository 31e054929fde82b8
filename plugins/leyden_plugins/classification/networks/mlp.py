"""Multilayer perceptron."""

from collections.abc import Sequence

from torch import Tensor, nn

from leyden.options import require_positive, require_probability
from leyden_plugins.classification.networks._layers import Activation, LazyNormalLinear, NormalLinear, activation_layer


class MLP(nn.Module):
    """Multilayer perceptron: fully connected hidden layers, each with an activation and dropout.

    The number of pixels is taken from the first batch, so one forward pass must come before the weights
    are counted or given to an optimizer. Weights start as N(0, 0.01²), biases as zeros.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        hidden_sizes: number of units of each hidden layer.
        activation: what follows each hidden layer: relu, sigmoid or tanh.
        dropout: probability of dropping a hidden unit: one for all hidden layers, or a list with one for each.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes); every batch has the H and W of the first.

    Raises:
        ValueError: a size below 1, no hidden layer, an unknown activation, a dropout outside 0..1, or
            a list of dropouts that is not as long as hidden_sizes.

    Source:
        Dive into Deep Learning, 5.1, 5.2 (the model) and 5.6 (dropout). Srivastava et al., "Dropout: a simple
        way to prevent neural networks from overfitting", JMLR 2014, section 4.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (256,),
        activation: Activation = "relu",
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, hidden_sizes=hidden_sizes)
        dropouts = _one_for_each(dropout, hidden_sizes)
        first, *others = hidden_sizes
        layers: list[nn.Module] = [nn.Flatten(), LazyNormalLinear(first)]
        layers += [activation_layer(activation), nn.Dropout(dropouts[0])]
        inputs = first
        for outputs, probability in zip(others, dropouts[1:], strict=True):
            layers += [NormalLinear(inputs, outputs), activation_layer(activation), nn.Dropout(probability)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, NormalLinear(inputs, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def _one_for_each(dropout: float | Sequence[float], hidden_sizes: Sequence[int]) -> list[float]:
    dropouts = list(dropout) if isinstance(dropout, Sequence) else [dropout] * len(hidden_sizes)
    if len(dropouts) != len(hidden_sizes):
        raise ValueError(
            f"dropout has {len(dropouts)} entries, expected one number or {len(hidden_sizes)} entries, "
            f"one for each of hidden_sizes."
        )
    for probability in dropouts:
        require_probability(dropout=probability)
    return dropouts
