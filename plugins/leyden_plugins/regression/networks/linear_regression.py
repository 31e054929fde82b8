"""Linear regression."""

from torch import Tensor, nn


class LinearRegression(nn.Module):
    """Linear regression: one linear layer. Weights start as N(0, 0.01²), the bias as zero.

    Args:
        in_features: numbers in a row.
        out_features: numbers to predict.

    Shape:
        (B, in_features) to (B, out_features).

    Source:
        Dive into Deep Learning, 3.1 (the model) and 3.5 (its concise form).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        nn.init.normal_(self.layer.weight, std=0.01)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        predictions: Tensor = self.layer(features)
        return predictions
