"""NLinear."""

from torch import Tensor, nn


class NLinear(nn.Module):
    """NLinear: one linear layer from the history to the forecast, both less the last value that is known.

    Args:
        history: rows that a forecast looks at.
        horizon: rows that it gives.

    Shape:
        (B, history) to (B, horizon).

    Source:
        Zeng et al., "Are Transformers effective for time series forecasting?", AAAI 2023, section 4.
    """

    def __init__(self, history: int, horizon: int) -> None:
        super().__init__()
        self.layer = nn.Linear(history, horizon)

    def forward(self, history: Tensor) -> Tensor:
        last = history[:, -1:]
        forecast: Tensor = self.layer(history - last) + last
        return forecast
