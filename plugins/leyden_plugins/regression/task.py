"""Regressor: one number for each row of a table."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from leyden.batches import LabelledRows, TableFacts
from leyden.errors import UsageError
from leyden.folders import write_csv
from leyden.networks import dry_run
from leyden.plugins import named
from leyden.task import Record, Stage, Task
from leyden_plugins.regression.figures import fitted_line, prediction_against_truth, residuals
from leyden_plugins.regression.metrics import CentredR2, Points, RootMeanSquaredLogError

LOWEST_PREDICTION = 1e-3  # of the mean target: what predictions are raised to before their logarithm is taken


class Regressor(Task[LabelledRows]):
    """Predicts numbers: squared, absolute or Huber loss; MSE, RMSE, MAE, log-RMSE, R2.

    The network learns targets (or, where the data says so, their logarithms) of mean 0 and standard deviation 1 over
    the training rows; the loss is in these units, metrics and predictions are in the target's own.

    Args:
        net: the network, called as net(in_features, 1); maps float32 rows (B, F) to (B, 1).
        criterion: what is minimised: the mean of squared differences (mse), of absolute ones (l1), or Huber's loss
            (huber; Huber, "Robust estimation of a location parameter", 1964).
        huber_delta: the difference from which on Huber's loss grows linearly.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a huber_delta that is not above 0, and for options that the network refuses.
    """

    monitor = "val/loss"
    mode = "min"
    facts: TableFacts

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        criterion: Literal["mse", "l1", "huber"] = "mse",
        huber_delta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < huber_delta < math.inf:
            raise UsageError(f"huber_delta is {huber_delta}; it must be above 0.")
        self.network_factory = net
        self.criterion = criterion
        self.huber_delta = huber_delta

    def build_network(self) -> nn.Module:
        """The network for the data's features, tried on one row."""
        features = len(self.facts.feature_names)
        net = self.network_factory(features, 1)
        try:
            predictions = dry_run(net, torch.zeros(1, features))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"{type(net).__name__} cannot take rows of {features} features: {error}") from error
        if predictions.shape != (1, 1):
            raise UsageError(
                f"{named(type(net))} gives {tuple(predictions.shape)} for one row of {features} features, expected "
                "(1, 1): a network for pictures does not serve here."
            )
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """All of them in the target's units; log-RMSE where all targets are positive."""
        centre = self._to_units(torch.zeros(())).item()
        metrics: dict[str, Any] = {
            "mse": MeanSquaredError(),
            "rmse": MeanSquaredError(squared=False),
            "mae": MeanAbsoluteError(),
            "r2": CentredR2(centre),
        }
        if self.facts.positive_target:
            metrics["log_rmse"] = RootMeanSquaredLogError(LOWEST_PREDICTION * centre)
        if stage != "train":
            metrics["points"] = Points()
        return MetricCollection(metrics)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) float32 to standardised predictions (B,)."""
        predictions: Tensor = self.network(features)
        return predictions.squeeze(1)

    def outputs(self, batch: LabelledRows) -> Tensor:
        """Standardised predictions (B,)."""
        predictions: Tensor = self(batch.features)
        return predictions

    def loss(self, outputs: Tensor, batch: LabelledRows) -> Tensor:
        """The mean over the batch, of standardised differences."""
        targets = self._standardised(batch.targets)
        if self.criterion == "mse":
            return F.mse_loss(outputs, targets)
        if self.criterion == "l1":
            return F.l1_loss(outputs, targets)
        return F.huber_loss(outputs, targets, delta=self.huber_delta)

    def measure(self, outputs: Tensor, batch: LabelledRows) -> tuple[Tensor, ...]:
        """Standardised predictions (B,), targets (B,); and in evaluation the features (B, F), for pictures."""
        return (outputs, batch.targets) if self.training else (outputs, batch.targets, batch.features)

    def update_metrics(self, metrics: MetricCollection, *measured: Tensor) -> None:
        """In the target's units."""
        outputs, targets, *features = measured
        metrics.update(self._to_units(outputs.float()), targets, **({"features": features[0]} if features else {}))

    def predict(self, batch: LabelledRows) -> list[Record]:
        """`prediction` in the target's units, and `truth` where it is known."""
        predictions = self._to_units(self(batch.features).float()).tolist()
        pairs = zip(predictions, batch.targets.tolist(), strict=True)
        return [
            {"prediction": prediction} if math.isnan(truth) else {"prediction": prediction, "truth": truth}
            for prediction, truth in pairs
        ]

    def write_predictions(self, records: Sequence[Record], folder: Path) -> None:
        """predictions.csv: the rows' ids and what was predicted, under the column names of the training table."""
        head = [self.facts.id_name or "row", self.facts.target_name]
        write_csv(folder / "predictions.csv", [head, *([each["input"], each["prediction"]] for each in records)])

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """Prediction against truth, residuals, and for one feature the fitted line over the points."""
        if "points" not in results:
            return {}
        points, name = results["points"].cpu(), self.facts.target_name
        figures = {
            "prediction_against_truth": prediction_against_truth(points, name),
            "residuals": residuals(points, name),
        }
        if points.shape[1] == 3:
            figures["fitted_line"] = fitted_line(points, self.facts.feature_names[0], name)
        return figures

    def _standardised(self, targets: Tensor) -> Tensor:
        facts = self.facts
        if facts.log_target:
            targets = targets.log()
        if (facts.target_mean, facts.target_std) == (0.0, 1.0):
            return targets
        return (targets - facts.target_mean) / facts.target_std

    def _to_units(self, outputs: Tensor) -> Tensor:
        """The inverse of `_standardised`."""
        facts = self.facts
        if (facts.target_mean, facts.target_std) != (0.0, 1.0):
            outputs = outputs * facts.target_std + facts.target_mean
        return outputs.exp() if facts.log_target else outputs
