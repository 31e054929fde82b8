"""Forecaster: the next values of time series."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from leyden.draw import NEUTRAL, captioned
from leyden.errors import UsageError
from leyden.folders import write_csv
from leyden.networks import dry_run
from leyden.task import Record, Stage, Task
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from forecasting.batch import SeriesFacts, Windows
from forecasting.metrics import MeanAbsoluteScaledError
from forecasting.plots import chart, errors_by_step


class Forecaster(Task[Windows]):
    """Forecasts time series: absolute error; MAE, RMSE, MASE, and the error of each step ahead.

    The network sees series of mean 0 and standard deviation 1 over the training rows; the loss is in these units,
    metrics and predictions are in the series' own.

    Args:
        net: the network, called as net(history, horizon); maps (B, history) to (B, horizon).
        **task: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a network that does not fit the data.
    """

    monitor = "val/mase"
    mode = "min"
    facts: SeriesFacts

    def __init__(self, net: Callable[[int, int], nn.Module], **task: Any) -> None:
        super().__init__(**task)
        self.network_factory = net

    def build_network(self) -> nn.Module:
        """The network for the data's history and horizon, tried on one window."""
        history, horizon = self.facts.history, self.facts.horizon
        net = self.network_factory(history, horizon)
        name = type(net).__name__
        try:
            forecast = dry_run(net, torch.zeros(1, history))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"{name} cannot take a history of {history} rows: {error}") from error
        if forecast.shape != (1, horizon):
            raise UsageError(f"{name} gives {tuple(forecast.shape)} for one history, expected {(1, horizon)}.")
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """In the series' units, but for MASE; by step in evaluation."""
        metrics: dict[str, Any] = {
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
            "mase": MeanAbsoluteScaledError(),
        }
        if stage != "train":
            metrics["mae_by_step"] = MeanAbsoluteError(num_outputs=self.facts.horizon)
        return MetricCollection(metrics, compute_groups=False)

    def outputs(self, batch: Windows) -> Tensor:
        """Standardised forecasts (B, H)."""
        forecasts: Tensor = self.network((batch.history - batch.means[:, None]) / batch.stds[:, None])
        return forecasts

    def loss(self, outputs: Tensor, batch: Windows) -> Tensor:
        """The mean absolute error, standardised."""
        return F.l1_loss(outputs.float(), (batch.future - batch.means[:, None]) / batch.stds[:, None])

    def measure(self, outputs: Tensor, batch: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts (B, H) and what came (B, H), both in the series' units; the errors of the naive forecast (B,)."""
        return self._in_units(outputs, batch), batch.future, batch.naive_errors

    def update_metrics(self, metrics: MetricCollection, *measured: Tensor) -> None:
        """MASE alone is told the errors of the naive forecast."""
        forecasts, future, naive_errors = measured
        metrics.update(forecasts, future, naive_errors=naive_errors)

    def predict(self, batch: Windows) -> list[Record]:
        """`series`, the `next` value, the whole `forecast`, and `truth` where it is known; `past` for the picture."""
        forecasts = self._in_units(self.outputs(batch), batch)
        records: list[Record] = []
        for series, forecast, future, past in zip(
            batch.series.tolist(), forecasts.tolist(), batch.future.tolist(), batch.history.cpu(), strict=True
        ):
            record: Record = {"series": self.facts.series_names[series], "next": forecast[0], "forecast": forecast}
            known = {} if any(value != value for value in future) else {"truth": future}
            records.append({**record, **known, "past": past})
        return records

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """What was known, the forecast, and what came."""
        drawn = chart(record["past"].tolist(), record["forecast"], record.get("truth", ()))
        return captioned(drawn, f"{record['series']}: next {record['next']:.4g}", NEUTRAL)

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """The error of each step ahead."""
        errors = results.get("mae_by_step")
        return {} if errors is None else {"mae_by_step": errors_by_step(errors.tolist())}

    def write_predictions(self, records: Sequence[Record], folder: Path) -> None:
        """forecasts.csv: a row for each step ahead of each input."""
        rows = [
            (each["input"], each["series"], step, value)
            for each in records
            for step, value in enumerate(each["forecast"], start=1)
        ]
        write_csv(folder / "forecasts.csv", [("input", "series", "step", "value"), *rows])

    def _in_units(self, outputs: Tensor, batch: Windows) -> Tensor:
        return outputs.float() * batch.stds[:, None] + batch.means[:, None]
