"""Initialisation of a network's weights by name, with torch.nn.init."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from leyden.errors import UsageError

Initialisation = Literal["normal", "constant", "xavier", "kaiming"]
_NORMS = (nn.LayerNorm, nn.RMSNorm)  # the norms whose weights may have two or more dimensions


def filler(name: Initialisation | None, value: float | None) -> Callable[[torch.Tensor], Any] | None:
    """What fills a weight tensor in place; None where networks keep the initialisation that they come with.

    normal: zero mean and standard deviation `value`, without one 0.01. constant: `value`, without one 1.
    xavier: uniform with variance 2 / (fan_in + fan_out) (Glorot and Bengio, "Understanding the difficulty of training
    deep feedforward neural networks", 2010, eq. 16). kaiming: normal with variance 2 / fan_in (He et al., "Delving
    Deep into Rectifiers", 2015, eq. 10).

    Raises:
        UsageError: for a value that the initialisation does not take.
    """
    if value is not None and name not in ("normal", "constant"):
        chosen = "not set" if name is None else name
        raise UsageError(f"init_value is {value}, but init is {chosen}; only init normal and constant take a value.")
    if value is not None and not math.isfinite(value):
        raise UsageError(f"init_value is {value}; it must be a finite number.")
    if name == "normal" and value is not None and value < 0:
        raise UsageError(f"init_value is {value}; as the standard deviation of init normal it must be 0 or more.")
    fillers: dict[Initialisation, Callable[[torch.Tensor], Any]] = {
        "normal": partial(nn.init.normal_, std=0.01 if value is None else value),
        "constant": partial(nn.init.constant_, val=1.0 if value is None else value),
        "xavier": nn.init.xavier_uniform_,
        "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    }
    return None if name is None else fillers[name]


def initialise(network: nn.Module, fill: Callable[[torch.Tensor], Any] | None) -> None:
    """Fill all weights of two or more dimensions, and set the biases beside them to zero.

    Norms, an embedding's padding row, and what is not trained stay as they are.
    """
    if fill is None:
        return
    for module in network.modules():
        own = {name: each for name, each in module.named_parameters(recurse=False) if each.requires_grad}
        weights = [each for each in own.values() if each.ndim >= 2]
        if not weights or isinstance(module, _NORMS):
            continue
        for weight in weights:
            fill(weight)
        for name, parameter in own.items():
            if parameter.ndim == 1 and "bias" in name:
                nn.init.zeros_(parameter)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
