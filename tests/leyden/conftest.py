"""What the engine's tests share: a clean place to run in, a tiny data set, a trained run, and a toy task."""

import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torchmetrics import MeanSquaredError, MetricCollection

from leyden import plugins
from leyden.batches import Facts
from leyden.data import DataModule, InMemory
from leyden.main import main
from leyden.task import Record, Stage, Task
from leyden_datamodules.fashion_mnist import FashionMNIST

Main = Callable[..., int]


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder of its own, and what a command changes in the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.delenv("LEYDEN_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "160")  # the width of a terminal, where output depends on it
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fashion_mnist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The arguments that read a fabricated Fashion-MNIST of 75 training, 21 validation and 27 test pictures."""
    return FashionMNIST.fabricate(tmp_path_factory.mktemp("FashionMNIST"))


@pytest.fixture(scope="session")
def data_options(fashion_mnist: dict[str, Any]) -> list[str]:
    """The same as words of a command line: 5 batches of 16 or fewer in an epoch."""
    options = [f"--data.{name}={value}" for name, value in fashion_mnist.items()]
    return ["--data", "FashionMNIST", *options]


@pytest.fixture(scope="session")
def fit_options(data_options: list[str]) -> list[str]:
    """Words behind `fit` that train LeNet for an epoch, which takes a tenth of a second."""
    model = ["--model", "ImageClassifier", "--model.net", "LeNet", "--model.optimizer=Adam"]
    return [*model, *data_options, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, fit_options: list[str]) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    options = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--trainer.max_epochs=3"]
    assert main(["fit", *fit_options, *options, "--runs", str(runs), "--experiment", "trained"]) == 0
    return runs / "trained" / "1"


@pytest.fixture
def trained_run(_trained: Path, tmp_path: Path) -> Path:
    """A copy of a run of three epochs: runs/trained/1 in the folder that the test runs in."""
    shutil.copytree(_trained, tmp_path / "runs" / "trained" / "1")
    return Path("runs", "trained", "1")


class Site:
    """A folder on sys.path into which a test puts packages, with the metadata that pip would write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: str, entry_points: dict[str, dict[str, str]], version: str = "1.0", **modules: str) -> None:
        """entry_points: {group: {name: target}}. modules: source by module name, `__` for a dot."""
        info = self.folder / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        groups = {
            f"leyden.{group}": "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in entry_points.items()
        }
        (info / "entry_points.txt").write_text("".join(f"[{group}]\n{lines}\n" for group, lines in groups.items()))
        for name, source in modules.items():
            path = self.folder.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        plugins._installed.cache_clear()
        plugins._class_node.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Packages that exist for one test only."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
    plugins._installed.cache_clear()
    plugins._class_node.cache_clear()


@dataclass(frozen=True)
class PointFacts(Facts):
    """features: numbers in each input."""

    features: int


class Points(NamedTuple):
    """inputs: (B, features) float32. targets: (B,) float32."""

    inputs: Tensor
    targets: Tensor

    @staticmethod
    def facts_class() -> type[PointFacts]:
        return PointFacts


class Regression(Task[Points]):
    """The smallest task there is: mean squared error of a network net(features)."""

    facts: PointFacts

    def __init__(self, net: Callable[[int], nn.Module] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network_factory = net

    def build_network(self) -> nn.Module:
        make = self.network_factory or (lambda features: nn.Linear(features, 1))
        return make(self.facts.features)

    def build_metrics(self, stage: Stage) -> MetricCollection:
        return MetricCollection({"mse": MeanSquaredError()})

    def outputs(self, batch: Points) -> Tensor:
        return self.network(batch.inputs).squeeze(1)

    def loss(self, outputs: Tensor, batch: Points) -> Tensor:
        return F.mse_loss(outputs, batch.targets)

    def measure(self, outputs: Tensor, batch: Points) -> tuple[Tensor, Tensor]:
        return outputs, batch.targets

    def predict(self, batch: Points) -> list[Record]:
        return [{"value": value, "text": f"{value:.2f}"} for value in self.outputs(batch).tolist()]


class PointData(DataModule[Points]):
    """Points held in memory: the first `val_size` are validated, the others trained on, all are tested."""

    def __init__(self, points: Points, val_size: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.points = points
        self.val_size = val_size

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        raise NotImplementedError

    def load(self, split: str) -> InMemory:
        parts = {"train": slice(self.val_size, None), "val": slice(self.val_size), "test": slice(None)}
        return InMemory(Points(*(tensor[parts[split]] for tensor in self.points)))

    def describe(self) -> PointFacts:
        return PointFacts(self.points.inputs.shape[1])

    def load_inputs(self, inputs: Sequence[str]) -> InMemory:
        raise NotImplementedError


def make_points(count: int, features: int = 3) -> Points:
    """Noisy values of a linear function; always the same."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, features, generator=generator)
    weights = torch.arange(1, features + 1, dtype=torch.float32)
    return Points(inputs, inputs @ weights + 0.1 * torch.randn(count, generator=generator))


def make_trainer(**kwargs: Any) -> Trainer:
    """A trainer for the CPU that writes nothing, unless told otherwise."""
    saves = any(isinstance(callback, Checkpoint) for callback in kwargs.get("callbacks", []))
    quiet = {"logger": False, "enable_checkpointing": saves, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    return Trainer(**{**quiet, **kwargs})


class Toy(NamedTuple):
    """What tests of the engine's Python side need."""

    Points: type[Points] = Points
    Facts: type[PointFacts] = PointFacts
    Task: type[Regression] = Regression
    Data: type[PointData] = PointData
    points: Callable[..., Points] = make_points
    trainer: Callable[..., Trainer] = make_trainer


@pytest.fixture
def toy() -> Toy:
    """A task, a data module and a trainer that are done in milliseconds."""
    return Toy()
