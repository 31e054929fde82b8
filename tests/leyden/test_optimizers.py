"""Torch's optimizers by their short names, against update equations written out here in float64; and through the
command line what training needs with them: momentum, clipping, batches of one and of all, early stopping."""

import math
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.networks.lenet import LeNet

# ---- the equations (Zhang et al., "Dive into Deep Learning", sections 12.4 to 12.10), for each coordinate alone

STEPS = 20
CURVATURE = (0.2, 4.0)  # f(x) = 0.1 x1^2 + 2 x2^2, the book's example
START = (-5.0, -2.0)
Gradient = Callable[[float], float]


def gradient_descent(x: float, g: Gradient, lr: float, weight_decay: float = 0.0) -> Iterator[float]:
    while True:
        x = x - lr * (g(x) + weight_decay * x)
        yield x


def momentum(x: float, g: Gradient, lr: float, beta: float) -> Iterator[float]:
    v = 0.0
    while True:
        v = beta * v + g(x)
        x = x - lr * v
        yield x


def nesterov(x: float, g: Gradient, lr: float, beta: float) -> Iterator[float]:
    """Sutskever et al., 2013, eq. 3 and 4: the gradient is taken ahead, at x + beta v; torch holds that point."""
    ahead, v = x, 0.0
    base = x
    while True:
        v = beta * v - lr * g(ahead)
        base = base + v
        ahead = base + beta * v
        yield ahead


def adagrad(x: float, g: Gradient, lr: float, eps: float = 1e-10) -> Iterator[float]:
    """As everywhere below, torch adds eps to the root; the book adds it under the root."""
    s = 0.0
    while True:
        s = s + g(x) ** 2
        x = x - lr / (math.sqrt(s) + eps) * g(x)
        yield x


def rmsprop(x: float, g: Gradient, lr: float, gamma: float, eps: float = 1e-8) -> Iterator[float]:
    s = 0.0
    while True:
        s = gamma * s + (1 - gamma) * g(x) ** 2
        x = x - lr / (math.sqrt(s) + eps) * g(x)
        yield x


def adadelta(x: float, g: Gradient, rho: float = 0.9, eps: float = 1e-6) -> Iterator[float]:
    """There is no rate; here eps is under the roots, in torch too."""
    s = delta = 0.0
    while True:
        s = rho * s + (1 - rho) * g(x) ** 2
        rescaled = math.sqrt(delta + eps) / math.sqrt(s + eps) * g(x)
        x = x - rescaled
        delta = rho * delta + (1 - rho) * rescaled**2
        yield x


def adam(
    x: float, g: Gradient, lr: float, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.0, eps: float = 1e-8
) -> Iterator[float]:
    """decay: of the weights themselves (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019)."""
    v = s = 0.0
    t = 0
    while True:
        t += 1
        v = betas[0] * v + (1 - betas[0]) * g(x)
        s = betas[1] * s + (1 - betas[1]) * g(x) ** 2
        v_hat, s_hat = v / (1 - betas[0] ** t), s / (1 - betas[1] ** t)
        x = x - lr * v_hat / (math.sqrt(s_hat) + eps) - lr * decay * x
        yield x


def trajectory(method: Callable[..., Iterator[float]], **options: Any) -> list[list[float]]:
    """The points after 0, 1, ... steps."""
    lines = []
    for start, curvature in zip(START, CURVATURE, strict=True):
        steps = method(start, lambda x, curvature=curvature: curvature * x, **options)
        lines.append([start, *(next(steps) for _ in range(STEPS))])
    return [list(point) for point in zip(*lines, strict=True)]


# ---- the same through the command line

QUADRATIC = f"""
import torch
from lightning.pytorch import Callback
from torch import nn
from torchmetrics import MetricCollection
from typing import NamedTuple

from leyden.batches import Facts
from leyden.data import DataModule, InMemory
from leyden.task import Task


class Rows(NamedTuple):
    rows: torch.Tensor

    @staticmethod
    def facts_class():
        return Facts


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor({START}))


class Quadratic(Task[Rows]):
    '''Half the curvatures times the squares of the point, whatever the data.'''

    def build_network(self):
        return Point()

    def build_metrics(self, stage):
        return MetricCollection({{}})

    def outputs(self, batch):
        return self.network.x

    def loss(self, outputs, batch):
        return (torch.tensor({CURVATURE}, dtype=torch.float64) * outputs**2).sum() / 2

    def measure(self, outputs, batch):
        return ()

    def predict(self, batch):
        return []


class Nothing(DataModule[Rows]):
    def load(self, split):
        return InMemory(Rows(torch.zeros(4, 1)))

    def describe(self):
        return Facts()


class Trajectory(Callback):
    points = []

    def on_train_start(self, trainer, pl_module):
        self.points[:] = [pl_module.network.x.tolist()]

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.points.append(pl_module.network.x.tolist())
"""
BARE = ["--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu"]


def descend(*optimizer: str) -> list[list[float]]:
    """Full-batch training in float64: one step in each epoch."""
    Path("quadratic.py").write_text(QUADRATIC)
    sys.modules.pop("quadratic", None)
    words = ["--model", "quadratic.Quadratic", "--data", "quadratic.Nothing", "--data.batch_size=null", *BARE]
    words += [f"--trainer.max_epochs={STEPS}", "--trainer.precision=64-true"]
    words += ["--trainer.callbacks=quadratic.Trajectory", *(f"--model.{option}" for option in optimizer)]
    assert main(["fit", *words]) == 0
    points: list[list[float]] = sys.modules["quadratic"].Trajectory.points
    return points


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optimizer=SGD", "optimizer.lr=0.1"], trajectory(gradient_descent, lr=0.1)),
        (
            ["optimizer=SGD", "optimizer.lr=0.1", "optimizer.weight_decay=0.3"],
            trajectory(gradient_descent, lr=0.1, weight_decay=0.3),
        ),
        (["optimizer=SGD", "optimizer.lr=0.4", "optimizer.momentum=0.5"], trajectory(momentum, lr=0.4, beta=0.5)),
        (
            ["optimizer=SGD", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.nesterov=true"],
            trajectory(nesterov, lr=0.1, beta=0.9),
        ),
        (["optimizer=Adagrad"], trajectory(adagrad, lr=0.01)),
        (["optimizer=Adagrad", "optimizer.lr=0.4"], trajectory(adagrad, lr=0.4)),
        (["optimizer=RMSprop", "optimizer.lr=0.4", "optimizer.alpha=0.9"], trajectory(rmsprop, lr=0.4, gamma=0.9)),
        (["optimizer=Adadelta"], trajectory(adadelta)),
        (["optimizer=Adam", "optimizer.lr=0.5"], trajectory(adam, lr=0.5)),
        (
            ["optimizer=Adam", "optimizer.lr=0.5", "optimizer.betas=[0.5,0.9]"],
            trajectory(adam, lr=0.5, betas=(0.5, 0.9)),
        ),
        (
            ["optimizer=AdamW", "optimizer.lr=0.5", "optimizer.weight_decay=0.1"],
            trajectory(adam, lr=0.5, decay=0.1),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_trajectories_are_those_of_the_equations(words: list[str], expected: list[list[float]]) -> None:
    found = descend(*words)
    assert len(found) == STEPS + 1
    for point, wanted in zip(found, expected, strict=True):
        assert point == pytest.approx(wanted, rel=1e-10, abs=1e-10)


def value(point: list[float]) -> float:
    return sum(curvature * x**2 / 2 for curvature, x in zip(CURVATURE, point, strict=True))


def test_momentum_is_faster_than_plain_descent_at_the_same_rate() -> None:
    plain = descend("optimizer=SGD", "optimizer.lr=0.1")
    faster = descend("optimizer=SGD", "optimizer.lr=0.1", "optimizer.momentum=0.5")
    assert value(faster[-1]) < 0.5 * value(plain[-1])
    assert value(plain[-1]) < value(plain[0])


def test_adadelta_moves_without_a_rate() -> None:
    """Slowly at first: its steps begin at the root of eps, times ten."""
    points = descend("optimizer=Adadelta")
    assert points[0][0] - points[1][0] == pytest.approx(-1e-3 / math.sqrt(0.1), rel=1e-4)
    assert all(value(later) < value(earlier) for earlier, later in pairwise(points))


# ---- a real network

INITIAL = ["--model.optimizer=SGD", "--model.optimizer.lr=0"]
LAST = Path("runs/lenet/1/checkpoints/last.ckpt")


@pytest.fixture
def weights(fit_options: list[str]) -> Callable[..., tuple[dict[str, Tensor], int]]:
    """The network's weights, and how many steps were done, after `fit` with these options."""
    count = 0

    def train(*options: str) -> tuple[dict[str, Tensor], int]:
        nonlocal count
        count += 1
        words = ["--model.net.activation=relu", "--trainer.limit_val_batches=0", f"--experiment=number{count}"]
        assert main(["fit", *fit_options, *words, *options]) == 0
        checkpoint = read_checkpoint(Path(f"runs/number{count}/1/checkpoints/last.ckpt"))
        found = {name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items()}
        return {name: value for name, value in found.items() if "metrics" not in name}, checkpoint["global_step"]

    return train


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    return torch.cat([(one[name] - other[name]).double().flatten() for name in one])


def test_a_batch_of_the_whole_training_set_follows_its_gradient(weights: Any, fashion_mnist: dict[str, Any]) -> None:
    initial, _ = weights(*INITIAL)
    found, steps = weights("--data.batch_size=null", "--model.optimizer=SGD", "--model.optimizer.lr=0.1")
    assert steps == 1
    data = FashionMNIST(**fashion_mnist)
    data.setup("fit")
    batch: Any = data.splits["train"].__getitems__(range(len(data.splits["train"])))
    net = LeNet(1, 10, activation="relu").double()
    net.load_state_dict(initial)
    F.cross_entropy(net(batch.images.double() / 255), batch.labels).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        expected = initial[name].double() - 0.1 * parameter.grad
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=1e-7)


def test_batches_of_one(weights: Any) -> None:
    _, steps = weights("--data.batch_size=1", "--model.optimizer=SGD", "--model.optimizer.lr=0.01")
    assert steps == 75


@pytest.mark.parametrize(("algorithm", "order"), [("norm", 2), ("value", math.inf)])
def test_clipping(weights: Any, algorithm: str, order: float) -> None:
    """One step at rate 1 goes as far as the gradient is large."""
    one_step = ["--trainer.max_steps=1", "--model.optimizer=SGD", "--model.optimizer.lr=1"]
    initial, _ = weights(*INITIAL)
    free, _ = weights(*one_step)
    clip = ["--trainer.gradient_clip_val=1e-2", f"--trainer.gradient_clip_algorithm={algorithm}"]
    clipped, _ = weights(*one_step, *clip)
    full, short = -difference(free, initial), -difference(clipped, initial)
    assert torch.linalg.vector_norm(full, order) > 0.02
    assert torch.linalg.vector_norm(short, order).item() == pytest.approx(0.01, rel=1e-3)
    expected = full * 0.01 / full.norm() if algorithm == "norm" else full.clamp(-0.01, 0.01)
    torch.testing.assert_close(short, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=SGD", "optimizer.lr=0.05", "optimizer.momentum=0.9"],
        ["optimizer=Adagrad", "optimizer.lr=0.01"],
        ["optimizer=RMSprop", "optimizer.lr=0.001"],
        ["optimizer=Adadelta"],
        ["optimizer=LBFGS", "optimizer.lr=0.1"],
    ],
    ids=lambda words: words[0].partition("=")[2],
)
def test_optimizers_train_a_classifier(words: list[str], fit_options: list[str]) -> None:
    options = [*(f"--model.{word}" for word in words), "--trainer.max_epochs=6", *BARE, "--model.net.activation=relu"]
    assert main(["fit", *fit_options, *options, "--data.batch_size=null", "--trainer.log_every_n_steps=1"]) == 0
    header, *rows = [line.split(",") for line in Path("runs/lenet/1/metrics.csv").read_text().splitlines()]
    losses = [float(row[header.index("train/loss")]) for row in rows if row[header.index("train/loss")]]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_early_stopping(fit_options: list[str]) -> None:
    """At a rate of 0 the loss never gets better than after the first epoch."""
    words = [*INITIAL, "--trainer.max_epochs=9", "--trainer.callbacks+=EarlyStopping"]
    words += ["--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=2"]
    assert main(["fit", *fit_options, *words]) == 0
    assert read_checkpoint(LAST)["global_step"] == 3 * 5


def test_early_stopping_by_what_is_not_measured(fit_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/bleu"]
    assert main(["fit", *fit_options, *words]) == 2
    shown = capsys.readouterr().err
    assert "val/bleu" in shown
    assert "Traceback" not in shown
