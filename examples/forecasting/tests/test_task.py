"""Forecaster: its numbers against numpy, its pictures, and that it learns more than to repeat the day before."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from leyden.errors import UsageError
from leyden.main import main
from PIL import Image
from torch import Tensor, nn

from forecasting.batch import SeriesFacts, Windows
from forecasting.made_up import write_loads
from forecasting.metrics import MeanAbsoluteScaledError
from forecasting.networks.temporal_conv import TemporalConv
from forecasting.plots import FORECAST, KNOWN, chart
from forecasting.task import Forecaster

FACTS = SeriesFacts(("a", "b"), 4, 2, 3, means=(10.0, 200.0), stds=(2.0, 50.0), naive_errors=(1.0, 20.0))


class Last(nn.Module):
    """Repeats the last value."""

    def __init__(self, history: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, history: Tensor) -> Tensor:
        return history[:, -1:].expand(-1, self.horizon)


class Stubborn(Last):
    """Gives seven values, whatever is asked for."""

    def __init__(self, history: int, horizon: int) -> None:
        super().__init__(history, 7)


def make_task(net: type[nn.Module] = Last) -> Forecaster:
    task = Forecaster(net=net)
    task.facts = FACTS
    task.configure_model()
    return task


def make_batch() -> Windows:
    generator = torch.Generator().manual_seed(0)
    series = torch.tensor([0, 1, 1])
    means, stds, naive = (torch.tensor(each)[series] for each in (FACTS.means, FACTS.stds, FACTS.naive_errors))
    values = means[:, None] + stds[:, None] * torch.randn(3, 6, generator=generator)
    history, future = (part.contiguous() for part in values.split(4, dim=1))
    return Windows(history, future, series, means, stds, naive)


def test_loss_and_metrics_are_those_of_numpy() -> None:
    task, batch = make_task(), make_batch()
    outputs = task.outputs(batch)
    metrics = task.build_metrics("test")
    task.update_metrics(metrics, *task.measure(outputs, batch))
    found = metrics.compute()

    errors = np.abs(batch.history[:, -1:].double().numpy() - batch.future.double().numpy())
    assert task.loss(outputs, batch).item() == pytest.approx((errors / batch.stds[:, None].numpy()).mean(), rel=1e-5)
    assert found["mae"].item() == pytest.approx(errors.mean(), rel=1e-5)
    assert found["rmse"].item() == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
    assert found["mase"].item() == pytest.approx((errors / np.array([[1.0], [20.0], [20.0]])).mean(), rel=1e-5)
    assert found["mae_by_step"].tolist() == pytest.approx(errors.mean(axis=0).tolist(), rel=1e-5)


def test_mase_counts_every_value_alike_over_batches() -> None:
    metric = MeanAbsoluteScaledError()
    metric.update(torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([2.0]))
    metric.update(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 4.0]))
    assert metric.compute().item() == (2 / 2 + 4 / 2 + 1 / 1 + 4 / 4) / 4


def test_a_prediction_is_in_the_series_own_unit() -> None:
    batch = make_batch()._replace(future=torch.full((3, 2), torch.nan))
    records = make_task().predict(batch)
    assert [record["series"] for record in records] == ["a", "b", "b"]
    for record, history in zip(records, batch.history.tolist(), strict=True):
        assert record["forecast"] == pytest.approx([history[-1]] * 2, rel=1e-5)
        assert record["next"] == record["forecast"][0]
        assert "truth" not in record


def test_a_network_that_ignores_the_horizon_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Stubborn gives \(1, 7\) for one history, expected \(1, 2\)"):
        make_task(Stubborn)


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_convolutions_look_as_far_back_as_they_say(blocks: int) -> None:
    seen = 2 ** (blocks + 2) - 3
    torch.manual_seed(0)
    net = TemporalConv(seen + 5, 1, channels=4, blocks=blocks)
    history = torch.randn(1, seen + 5, requires_grad=True)
    net(history).sum().backward()
    assert history.grad is not None
    assert not history.grad[0, :5].any()
    assert history.grad[0, 5] != 0


def test_the_picture_has_a_line_for_what_is_known_and_one_for_the_forecast() -> None:
    colours = {colour for _, colour in chart([0, 1, 0, 1], [1, 1]).getcolors(maxcolors=9999) or []}
    assert {"#{:02x}{:02x}{:02x}".format(*colour) for colour in colours} == {KNOWN, FORECAST, "#ffffff"}


def test_two_epochs_beat_the_day_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_loads(tmp_path / "loads.csv", days=100)
    config = Path(__file__).parents[1] / "loads.yaml"
    assert main(["fit", "--config", str(config), "--data.batch_size", "64", "--trainer.max_epochs", "2"]) == 0
    assert main(["test", "runs/loads/1"]) == 0
    assert main(["predict", "runs/loads/1", "loads.csv", "--out", "out"]) == 0

    assert json.loads(Path("runs/loads/1/test/metrics.json").read_text())["test/mase"] < 0.9
    assert Path("runs/loads/1/test/mae_by_step.png").is_file()
    with Path("out/forecasts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["series"] for row in rows[::24]] == ["north", "south", "west"]
    assert Image.open(next(Path("out").glob("*.png"))).width == 360
