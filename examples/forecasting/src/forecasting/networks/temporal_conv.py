"""Temporal convolutional network."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class TemporalConv(nn.Module):
    """Temporal convolutional network: causal convolutions, each looking twice as far back as the one before.

    The forecast is made from the features of the last row, and is added to its value.

    Args:
        history: rows that a forecast looks at.
        horizon: rows that it gives.
        channels: feature maps of each convolution.
        blocks: residual blocks; block k has dilation 2^k, so that 2^(blocks + 2) - 3 rows count.
        dropout: probability of dropping a feature map in training.

    Shape:
        (B, history) to (B, horizon).

    Raises:
        ValueError: a size below 1, or a dropout outside 0..1.

    Source:
        Bai et al., "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
        2018, section 3; without weight normalization.
    """

    def __init__(self, history: int, horizon: int, channels: int = 32, blocks: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if min(history, horizon, channels, blocks) < 1:
            raise ValueError(f"channels is {channels} and blocks {blocks}; expected numbers of at least 1.")
        widths = pairwise([1, *[channels] * blocks])
        self.blocks = nn.Sequential(*(_Block(*pair, 2**k, dropout) for k, pair in enumerate(widths)))
        self.head = nn.Linear(channels, horizon)

    def forward(self, history: Tensor) -> Tensor:
        features: Tensor = self.blocks(history.unsqueeze(1))  # (B, C, T)
        forecast: Tensor = self.head(features[:, :, -1]) + history[:, -1:]
        return forecast


class _Block(nn.Module):
    """Two causal convolutions of three rows each, with a residual connection."""

    def __init__(self, in_channels: int, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.past = 2 * dilation  # rows before the first that a convolution sees
        self.first = nn.Conv1d(in_channels, channels, 3, dilation=dilation)
        self.second = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.dropout = nn.Dropout1d(dropout)
        self.shortcut = nn.Conv1d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.dropout(F.relu(self.first(F.pad(inputs, (self.past, 0)))))
        features = self.dropout(F.relu(self.second(F.pad(features, (self.past, 0)))))
        outputs: Tensor = features + self.shortcut(inputs)
        return outputs
