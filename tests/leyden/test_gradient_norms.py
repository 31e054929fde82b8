"""GradientNorms against norms worked out from the gradients, however training is done."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor, nn

from leyden.callbacks import GradientNorms
from leyden.main import main
from leyden_plugins.classification.networks.lenet import LeNet


class Log(Logger):
    """Keeps what is logged."""

    name = version = ""

    def __init__(self) -> None:
        super().__init__()
        self.norms: dict[int | None, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        found = {name: value for name, value in metrics.items() if name.startswith("gradient_norm/")}
        if found:
            self.norms[step] = found

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Gradients(Callback):
    """Adds up the gradients of every batch by itself, as they are before anything else is done with them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.steps.append({})

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for name, parameter in pl_module.network.named_parameters():
            if parameter.grad is not None:
                self.steps[-1][name] = parameter.grad.detach().double().clone()


def two_layers(features: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(features, 4), nn.Tanh(), nn.Linear(4, 1), nn.Linear(1, 1))
    net[3].requires_grad_(False)
    return net


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def train(toy: Any, **trainer: Any) -> tuple[list[dict[str, Tensor]], dict[int | None, dict[str, float]]]:
    """12 points in batches of 3, 3 epochs: the gradients of every step, and what was logged by step."""
    gradients, log = Gradients(), Log()
    task = toy.Task(net=two_layers, optimizer=sgd)
    options = {"max_epochs": 3, "log_every_n_steps": 1, **trainer}
    toy.trainer(callbacks=[gradients, GradientNorms()], logger=log, **options).fit(
        task, toy.Data(toy.points(17), batch_size=3)
    )
    return gradients.steps, log.norms


def assert_norms(steps: list[dict[str, Tensor]], norms: dict[int | None, dict[str, float]]) -> None:
    for step, found in norms.items():
        assert step is not None
        expected = {f"gradient_norm/{name}": value.square().sum().sqrt() for name, value in steps[step].items()}
        assert found == {name: pytest.approx(value.item(), rel=1e-5) for name, value in expected.items()}


def test_every_layer_that_is_trained(toy: Any) -> None:
    steps, norms = train(toy)
    assert list(norms) == list(range(12))
    assert set(norms[0]) == {f"gradient_norm/{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert_norms(steps, norms)


@pytest.mark.parametrize(("interval", "logged"), [(3, [2, 5, 8, 11]), (5, [3, 4, 9])])
def test_as_often_as_everything_else_is_logged_and_once_an_epoch(toy: Any, interval: int, logged: list[int]) -> None:
    steps, norms = train(toy, log_every_n_steps=interval)
    assert list(norms) == logged
    assert_norms(steps, norms)


def test_not_at_all_where_nothing_is_logged(toy: Any) -> None:
    assert train(toy, log_every_n_steps=0)[1] == {}


@pytest.mark.parametrize("clip", [{"gradient_clip_val": 1e-3}, {"gradient_clip_algorithm": "value"}])
def test_before_clipping(toy: Any, clip: dict[str, Any]) -> None:
    steps, norms = train(toy, **{"gradient_clip_val": 1e-3, **clip})
    assert sum(norms[0].values()) > 0.1
    assert_norms(steps, norms)


def test_accumulated_gradients_are_one(toy: Any) -> None:
    steps, norms = train(toy, accumulate_grad_batches=2)
    assert list(norms) == list(range(6))
    assert_norms(steps, norms)
    halves = train(toy)[1]
    assert norms[0] != pytest.approx(halves[1], rel=1e-2)


def test_in_mixed_precision(toy: Any) -> None:
    steps, norms = train(toy, precision="bf16-mixed")
    assert_norms(steps, norms)


def test_by_its_short_name(fit_options: list[str]) -> None:
    words = ["--trainer.callbacks+=GradientNorms", "--trainer.log_every_n_steps=2", "--trainer.max_epochs=2"]
    assert main(["fit", *fit_options, *words]) == 0
    with Path("runs/lenet/1/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, _ in LeNet(1, 10).named_parameters():
        logged = [int(row["step"]) for row in rows if row[f"gradient_norm/{name}"]]
        assert logged == [1, 3, 5, 7, 9]
    with Image.open("runs/lenet/1/curves.png") as picture:
        panels = {"loss", "accuracy", "f1", "lr", "gradient_norm"}
        assert picture.size == (3 * 420, -(-len(panels) // 3) * 320)


def test_an_epoch_shorter_than_the_interval_is_seen_at_its_end(toy: Any) -> None:
    steps, norms = train(toy, log_every_n_steps=50)
    assert sorted(norms) == [3, 7, 11]
    assert_norms(steps, norms)
