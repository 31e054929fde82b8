"""Regressor: what it learns, its units, metrics against scikit-learn, its predictions as a table and as pictures."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import nn

from leyden.batches import LabelledRows, TableFacts
from leyden.errors import UsageError
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.synthetic_regression import SyntheticRegression
from leyden_datamodules.tabular_csv import TabularCSV
from leyden_plugins.classification.networks.mlp import MLP
from leyden_plugins.regression.networks.linear_regression import LinearRegression
from leyden_plugins.regression.task import Regressor

RECIPES = Path(__file__).parents[3] / "configs" / "regression"


@pytest.fixture(autouse=True)
def _clean_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def facts(**changed) -> TableFacts:
    columns = (("x1", 0.0, 1.0, None, False), ("x2", 0.0, 1.0, None, False))
    values = {"feature_names": ("x1", "x2"), "target_name": "price", "id_name": None, "log_target": False}
    values |= {"target_mean": 0.0, "target_std": 1.0, "positive_target": True}
    return TableFacts(**{**values, "numeric_columns": columns, "categorical_columns": (), **changed})


def make_task(table_facts: TableFacts, net=LinearRegression, **options) -> Regressor:
    task = Regressor(net=net, **options)
    task.facts = table_facts
    task.configure_model()
    return task


class FixedAnswers(nn.Module):
    """Gives these standardised predictions for whatever rows."""

    def __init__(self, in_features: int, out_features: int, values: list[float]) -> None:
        super().__init__()
        self.unused = nn.Linear(in_features, out_features)
        self.values = torch.tensor(values)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.values[: len(features), None]


class ThreeAnswers(nn.Linear):
    """A network with three outputs."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, 3)


def answering(values: list[float]) -> partial:
    return partial(FixedAnswers, values=values)


@pytest.fixture(scope="module")
def linear_run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    for _ in range(2):
        assert main(["fit", "--config", str(RECIPES / "linear.yaml"), "--runs", str(runs)]) == 0
    return runs / "linear"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"].items() if "net" in k}


def test_the_books_recipe_comes_near_the_least_squares_solution(linear_run):
    data = SyntheticRegression()
    features, targets = data.load("train").batch
    ones = np.ones((len(features), 1))
    solution, *_ = np.linalg.lstsq(np.hstack([features.double().numpy(), ones]), targets.double().numpy(), rcond=None)
    learnt = weights_of(linear_run / "1")
    assert learnt["net.layer.weight"].flatten().tolist() == pytest.approx(solution[:2].tolist(), abs=1e-2)
    assert learnt["net.layer.bias"].item() == pytest.approx(solution[2], abs=1e-2)


def test_two_runs_of_one_seed_are_equal_in_every_bit(linear_run):
    first, second = (weights_of(linear_run / number) for number in "12")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_run_shows_prediction_against_truth_and_residuals(linear_run):
    for name in ("prediction_against_truth.png", "residuals.png", "curves.png"):
        assert (linear_run / "1" / name).stat().st_size > 5000
    assert not (linear_run / "1" / "fitted_line.png").exists()
    assert not (linear_run / "1" / "samples").exists()


def test_one_feature_has_its_line_drawn_over_the_points():
    words = ["fit", "--model", "Regressor", "--model.net", "LinearRegression", "--data", "SyntheticRegression"]
    words += ["--data.weights=[2.0]", "--data.noise=1", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert main([*words, "--experiment", "line"]) == 0
    assert Path("runs/line/1/fitted_line.png").stat().st_size > 5000
    assert main(["test", "runs/line/1"]) == 0
    assert Path("runs/line/1/test/fitted_line.png").is_file()


@pytest.mark.parametrize("log_target", [False, True])
def test_metrics_are_in_the_targets_units_and_agree_with_scikit_learn(log_target):
    standardised = [-1.2, 0.3, 0.7, 2.0, -0.1]
    mean, std = (5.0, 0.4) if log_target else (150.0, 40.0)
    task = make_task(facts(log_target=log_target, target_mean=mean, target_std=std), answering(standardised))
    truth = torch.tensor([110.0, 150.0, 190.0, 260.0, 120.0])
    predictions = np.array(standardised) * std + mean
    predictions = np.exp(predictions) if log_target else predictions
    found = task.build_metrics("test")
    for rows in (slice(0, 2), slice(2, 5)):
        batch = LabelledRows(torch.zeros(5, 2)[rows], truth[rows])
        outputs = torch.tensor(standardised)[rows]
        task.eval()
        task.update_metrics(found, *task.measure(outputs, batch))
    values = found.compute()
    expected = {
        "mse": oracle.mean_squared_error(truth, predictions),
        "rmse": oracle.root_mean_squared_error(truth, predictions),
        "mae": oracle.mean_absolute_error(truth, predictions),
        "r2": oracle.r2_score(truth, predictions),
        "log_rmse": oracle.root_mean_squared_error(np.log(truth), np.log(predictions)),
    }
    assert {name: values[name].item() for name in expected} == pytest.approx(expected, rel=1e-5)
    assert values["points"][:, 0].tolist() == pytest.approx(predictions.tolist(), rel=1e-5)
    assert values["points"][:, 1].tolist() == truth.tolist()


def test_r2_keeps_its_digits_far_from_zero():
    truth = 1e4 + torch.randn(1000, generator=torch.Generator().manual_seed(0))
    task = make_task(facts(target_mean=1e4, target_std=1.0))
    metrics = task.build_metrics("train")
    guesses = 0.5 * (truth - 1e4)
    task.train()
    for part in range(0, 1000, 100):
        rows = slice(part, part + 100)
        task.update_metrics(metrics, guesses[rows], truth[rows])
    expected = oracle.r2_score(truth.double(), (guesses + 1e4).double())
    assert metrics.compute()["r2"].item() == pytest.approx(expected, abs=1e-3)


def test_a_single_row_has_no_r2_and_negative_targets_no_logarithm():
    task = make_task(facts(positive_target=False))
    metrics = task.build_metrics("test")
    assert "log_rmse" not in metrics
    task.eval()
    task.update_metrics(metrics, torch.zeros(1), torch.ones(1), torch.zeros(1, 2))
    assert metrics.compute()["r2"].isnan()


def test_a_prediction_without_a_logarithm_counts_as_very_small():
    task = make_task(facts(target_mean=100.0, target_std=10.0))
    metrics = task.build_metrics("train")
    task.update_metrics(metrics, torch.tensor([-50.0]), torch.tensor([100.0]))
    assert metrics["log_rmse"].compute().item() == pytest.approx(np.log(1000), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"criterion": "mse"}, (0.25 + 4 + 0) / 3),
        ({"criterion": "l1"}, (0.5 + 2 + 0) / 3),
        ({"criterion": "huber"}, (0.125 + 1.5 + 0) / 3),
        ({"criterion": "huber", "huber_delta": 0.25}, (0.25 * (0.5 - 0.125) + 0.25 * (2 - 0.125)) / 3),
    ],
)
def test_losses_are_those_of_their_formulas(options, expected):
    task = make_task(facts(target_mean=10.0, target_std=2.0), answering([0.5, -2.0, 1.0]), **options)
    batch = LabelledRows(torch.zeros(3, 2), torch.tensor([10.0, 10.0, 12.0]))
    assert task.loss(task.outputs(batch), batch).item() == pytest.approx(expected)


def test_the_network_learns_logarithms_where_the_data_says_so():
    task = make_task(facts(log_target=True, target_mean=2.0, target_std=0.5), answering([1.0]))
    batch = LabelledRows(torch.zeros(1, 2), torch.tensor([np.exp(2.5)], dtype=torch.float32))
    assert task.loss(task.outputs(batch), batch).item() == pytest.approx(0, abs=1e-10)
    assert task.predict(batch)[0]["prediction"] == pytest.approx(np.exp(2.5), rel=1e-5)


def test_predictions_are_a_table_with_the_inputs_ids(tmp_path):
    arguments = TabularCSV.fabricate(tmp_path / "data")
    words = [
        f"--data.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()
    ]
    fit = ["fit", "--model", "Regressor", "--model.net", "MLP", "--data", "TabularCSV", *words]
    assert main([*fit, "--trainer.max_epochs=1", "--experiment", "cars"]) == 0
    rows = list(csv.DictReader((tmp_path / "data" / "cars.csv").open()))
    given = tmp_path / "given.csv"
    with given.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "price"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:7][::-1])
    assert main(["predict", "runs/cars/1", str(given)]) == 0
    folder = Path("runs/cars/1/predictions")
    table = list(csv.DictReader((folder / "predictions.csv").open()))
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["plate"] for row in table] == [row["plate"] for row in rows[:7][::-1]]
    assert [float(row["price"]) for row in table] == [record["prediction"] for record in records]
    assert not any("truth" in record for record in records)
    assert main(["predict", "runs/cars/1", str(tmp_path / "data" / "cars.csv"), "--out", "all"]) == 0
    known = [json.loads(line) for line in Path("all/predictions.jsonl").read_text().splitlines()]
    assert [record["truth"] for record in known] == pytest.approx([float(row["price"]) for row in rows], rel=1e-6)


def test_a_network_for_pictures_is_refused(capsys):
    words = ["fit", "--model", "Regressor", "--model.net", "LeNet", "--data", "SyntheticRegression"]
    assert main([*words, "--trainer.accelerator=cpu"]) == 2
    assert "LeNet cannot take rows of 2 features" in capsys.readouterr().err


def test_a_network_with_another_output_is_refused():
    with pytest.raises(UsageError, match=r"gives \(1, 3\) for one row of 2 features"):
        make_task(facts(), ThreeAnswers)


def test_a_huber_delta_of_nothing_is_refused():
    with pytest.raises(UsageError, match="huber_delta is 0"):
        Regressor(net=LinearRegression, huber_delta=0)


def test_the_mlp_of_pictures_serves_rows():
    task = make_task(facts(), MLP)
    assert task.outputs(LabelledRows(torch.zeros(4, 2), torch.zeros(4))).shape == (4,)
