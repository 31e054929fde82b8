"""What a plugin must keep to: who breaks a rule gets one error that names the class, its package and the rule."""

import json
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leyden.batches import ImageFacts
from leyden.main import main
from leyden.rules import undeclared_batch, unsaved_state, unusable, wrong_loss, wrong_output

PARTS = '''"""Each breaks one rule."""
import numpy
import torch
from torch import nn

from leyden.data import DataModule
from leyden.task import Task
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.task import ImageClassifier


class Seven(nn.Module):
    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

    def forward(self, images):
        return self.layers(images)


class Undeclared(Task):
    pass


class UndeclaredData(DataModule):
    pass


class Lists(FashionMNIST):
    split = "train"

    def load(self, split):
        source = super().load(split)
        if split == self.split:
            get = source.__getitems__
            kind = type("Lists", (type(source),), {"__getitems__": lambda self, indices: list(get(indices))})
            source.__class__ = kind
        return source


class TestLists(Lists):
    split = "test"


class Transformed(FashionMNIST):
    def transform(self, batch, training):
        return super().transform(batch, training).images


class Vocabulary:
    pass


class Keeps(ImageClassifier):
    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["leyden"]["words"] = Vocabulary()


class Unchecked(ImageClassifier):
    def build_network(self):
        return self._new_network()


class Rows(ImageClassifier):
    def loss(self, outputs, batch):
        return outputs.sum(1)


class Detached(ImageClassifier):
    def loss(self, outputs, batch):
        return super().loss(outputs, batch).detach()


class Few(ImageClassifier):
    def predict(self, batch):
        return super().predict(batch)[1:]


class Numbers(ImageClassifier):
    def predict(self, batch):
        return [{"score": numpy.float32(1)} for _ in batch.labels]
'''


@pytest.fixture
def wrecks(site: Any) -> None:
    """The parts above as an installed package."""
    tasks = ("Undeclared", "Keeps", "Unchecked", "Rows", "Detached", "Few", "Numbers")
    data = ("UndeclaredData", "Lists", "TestLists", "Transformed")
    groups = {"tasks": tasks, "data": data, "networks": ("Seven",)}
    points = {group: {name: f"wreck_parts:{name}" for name in names} for group, names in groups.items()}
    site.add("wrecks", points, "3.1", wreck_parts=PARTS)


@pytest.mark.usefixtures("wrecks")
@pytest.mark.parametrize(
    ("task", "net", "data", "culprit", "message"),
    [
        ("Undeclared", None, None, "Undeclared", "declares no batch type. Write `class Undeclared(Task[BatchType])`"),
        (None, "LeNet", "UndeclaredData", "UndeclaredData", "declares no batch type. Write `class UndeclaredData(Data"),
        (None, "LeNet", "Lists", "Lists", "its first training batch is a list, declared is LabelledImages."),
        (None, "LeNet", "Transformed", "Transformed", "transform makes of its first validation batch a tensor of sh"),
        (None, "Seven", None, "Seven", "gives a tensor of shape (1, 7) for one image, expected (1, 10)."),
        ("Unchecked", "Seven", None, "Unchecked", "no loss can be computed: IndexError: Target "),
        ("Rows", "LeNet", None, "Rows", "loss() gives a tensor of shape (16,). Training needs one number"),
        ("Detached", "LeNet", None, "Detached", "loss() gives a number without a gradient. No weight has"),
        (
            "Keeps",
            "LeNet",
            None,
            "Keeps",
            "its state cannot be saved as plain values: leyden.words is a wreck_parts.Voc",
        ),
        ("Few", "LeNet", None, "Few", "predict() gives 15 records for a batch of 16 items."),
        ("Numbers", "LeNet", None, "Numbers", "predict() gives a float32 as 'score'."),
    ],
)
def test_one_error_names_package_class_and_rule(
    task: str | None,
    net: str | None,
    data: str | None,
    culprit: str,
    message: str,
    data_options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = ["--model.net", net] if net else []
    named = ["--data", data, *(data_options[2:] if data != "UndeclaredData" else [])] if data else data_options
    words = ["--model", task or "ImageClassifier", *network, *named, "--trainer.accelerator=cpu"]
    assert main(["fit", *words, "--trainer.max_epochs=1", "--experiment=x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {culprit} of wrecks 3.1: {message}")
    assert len(error.splitlines()) == 1
    assert not list(Path().glob("runs/*/*/checkpoints/*")), "before anything is trained that cannot be used"


@pytest.mark.usefixtures("wrecks")
def test_the_batch_is_looked_at_in_each_stage(data_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Good training batches say nothing about those of the test."""
    words = ["--model", "ImageClassifier", "--model.net", "LeNet", "--data", "TestLists", *data_options[2:]]
    assert main(["fit", *words, "--trainer.max_epochs=1", "--experiment=x"]) == 0
    capsys.readouterr()
    assert main(["test", "runs/x/1"]) == 2
    expected = "error: TestLists of wrecks 3.1: its first test batch is a list, declared is LabelledImages."
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.usefixtures("wrecks")
def test_the_message_about_a_network_has_its_numbers_but_not_all_of_them(
    data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "Unchecked", "--model.net", "Seven", *data_options, "--trainer.max_epochs=1"]
    assert main(["fit", *words]) == 2
    message = capsys.readouterr().err
    facts = "ImageFacts(channels=1, image_size=(28, 28), 10 class_names)"
    assert f"The network Seven of wrecks 3.1 is built with {facts}" in message
    assert "the batch is LabelledImages((16, 1, 28, 28), (16,))." in message


@pytest.mark.usefixtures("wrecks")
def test_predictions_are_looked_at_by_predict_too(fit_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    unseen = ["--trainer.limit_val_batches=0", "--experiment=x"]
    assert main(["fit", "--model", "Few", *fit_options[2:], *unseen]) == 0
    Image.new("L", (28, 28)).save("one.png")
    capsys.readouterr()
    assert main(["predict", "runs/x/1", "one.png"]) == 2
    assert "Few of wrecks 3.1: predict() gives 0 records for a batch of 1 items." in capsys.readouterr().err


class NoTuple:
    pass


class NoFacts(NamedTuple):
    images: Tensor


@pytest.mark.parametrize(
    ("batch_type", "found"),
    [
        (None, "declares no batch type"),
        (NoTuple, "declares the batch type NoTuple, which is no NamedTuple with facts_class"),
        (NoFacts, "declares the batch type NoFacts, which is no NamedTuple with facts_class"),
    ],
)
def test_batch_types_that_are_none(batch_type: Any, found: str) -> None:
    cls = type("Mine", (), {"batch_type": classmethod(lambda _: batch_type)})
    breach = undeclared_batch(cls, "Task")
    assert breach is not None
    assert breach.found == found


class Thing:
    pass


class Unpicklable:
    def __reduce__(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1, None),
        ([1.5, "x", None, True, {"a": (1, 2)}], None),
        (torch.zeros(3), None),
        (OrderedDict(a=torch.zeros(3), b=nn.Parameter(torch.zeros(3))), None),
        (torch.Size([1, 2]), None),
        (torch.float32, None),
        (Thing(), "state.x"),
        (Thing, "state.x"),
        ({"a": [0, {"b": Thing()}]}, "state.x.a.1.b"),
        (np.zeros(3), "state.x"),
        (np.float64(1), "state.x"),
        (Path("x"), "state.x"),
        (lambda: 0, "state.x"),
        (Unpicklable(), "state.x"),
        (nn.Linear(1, 1), "state.x"),
        (defaultdict(Thing, a=1), "state.x"),
    ],
    ids=lambda value: str(value) if value is None or isinstance(value, str) else type(value).__name__,
)
def test_what_a_checkpoint_may_hold(value: Any, path: str | None, tmp_path: Path) -> None:
    """The oracle is torch itself: what it saves and then loads with weights_only."""
    try:
        torch.save({"x": value}, tmp_path / "x")
        torch.load(tmp_path / "x", weights_only=True)
        loads = True
    except Exception:
        loads = False
    breach = unsaved_state({"epoch": 0, "state": {"x": value}})
    assert (breach is None) is loads is (path is None)
    if breach is not None:
        assert f"values: {path} is a " in breach.found


def test_what_a_module_keeps_of_its_arguments_can_be_left_out() -> None:
    breach = unsaved_state({"hyper_parameters": {"net": nn.Linear(1, 1)}})
    assert breach is not None
    assert breach.why.endswith("self.save_hyperparameters(ignore=['net']) leaves it out.")


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (torch.zeros((), requires_grad=True), None),
        (torch.zeros(()), "loss() gives a number without a gradient"),
        (torch.zeros(1, requires_grad=True), "loss() gives a tensor of shape (1,)"),
        (0.5, "loss() gives a float"),
        (None, "loss() gives a NoneType"),
    ],
)
def test_losses(loss: Any, found: str | None) -> None:
    breach = wrong_loss(loss)
    assert (breach and breach.found) == found


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(2, 5), None),
        (torch.zeros(2, 7), "gives a tensor of shape (2, 7) for two rows, expected (2, 5)"),
        ((torch.zeros(2, 5),), "gives a tuple for two rows, expected (2, 5)"),
    ],
)
def test_outputs(output: Any, found: str | None) -> None:
    breach = wrong_output(output, "two rows", (2, 5), "num_classes 5")
    assert (breach and breach.found) == found


def test_facts_of_many_classes_are_counted_in_a_message() -> None:
    facts = ImageFacts(3, (224, 224), tuple(f"class {i}" for i in range(1000)))
    breach = unusable(ImageFacts, nn.Linear, (torch.zeros(2, 3), "x"), facts, ValueError("no"))
    assert "ImageFacts(channels=3, image_size=(224, 224), 1000 class_names)" in breach.why
    assert "tuple((2, 3), str)" in breach.why
    assert json.dumps(breach)
