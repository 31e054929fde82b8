"""ImageClassifier: loss, metrics and predictions against formulas and scikit-learn; pictures by their pixels."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from torch import Tensor, nn

from leyden.batches import ImageFacts, LabelledImages
from leyden.draw import NEUTRAL, RIGHT, WRONG
from leyden.errors import UsageError
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.networks.lenet import LeNet
from leyden_plugins.classification.task import ImageClassifier

NAMES = ("cat", "dog", "eel", "fox")


class Given(nn.Module):
    """Gives the first pixels of an image as its logits, so that a test chooses them."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.num_classes]


def make_task(names: tuple[str, ...] = NAMES, net: Any = Given, **kwargs: Any) -> ImageClassifier:
    task = ImageClassifier(net=net, **kwargs)
    task.facts = ImageFacts(1, (4, 4), names)
    task.configure_model()
    return task


def batch_of(logits: Tensor, labels: Tensor) -> LabelledImages:
    images = torch.zeros(len(logits), 1, 4, 4)
    images.flatten(1)[:, : logits.shape[1]] = logits
    return LabelledImages(images, labels)


@pytest.fixture
def batch() -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return batch_of(torch.randn(50, 4, generator=generator), torch.randint(0, 4, (50,), generator=generator))


def test_the_loss_is_the_mean_cross_entropy(batch: LabelledImages) -> None:
    task = make_task()
    logits = task.outputs(batch)
    expected = log_loss(batch.labels, logits.double().softmax(1), labels=range(4))
    assert task.loss(logits, batch).item() == pytest.approx(expected, rel=1e-5)


def test_labels_are_smoothed_in_training_only(batch: LabelledImages) -> None:
    """Szegedy et al.: the target is (1 - e) one-hot + e / K."""
    task = make_task(label_smoothing=0.3)
    logits = task.outputs(batch)
    targets = 0.7 * torch.eye(4)[batch.labels] + 0.3 / 4
    smoothed = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert task.train().loss(logits, batch).item() == pytest.approx(smoothed.item(), rel=1e-5)
    plain = make_task().eval().loss(logits, batch)
    assert torch.equal(task.eval().loss(logits, batch), plain)


def test_mixed_labels_are_probabilities(batch: LabelledImages) -> None:
    task = make_task()
    logits = task.outputs(batch)
    shares = torch.rand(50, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    mixed = LabelledImages(batch.images, shares)
    expected = -(shares * logits.log_softmax(1)).sum(1).mean()
    assert task.loss(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-5)

    metrics = task.build_metrics("train")
    metrics.update(*task.measure(logits, mixed))
    assert metrics.compute()["accuracy"].item() == pytest.approx(accuracy_score(shares.argmax(1), logits.argmax(1)))


def test_metrics_are_those_of_scikit_learn(batch: LabelledImages) -> None:
    task = make_task()
    metrics = task.build_metrics("test")
    for start in range(0, 50, 8):
        part = LabelledImages(*(tensor[start : start + 8] for tensor in batch))
        metrics.update(*task.measure(task.outputs(part), part))
    found, predicted = metrics.compute(), task.outputs(batch).argmax(1)
    assert found["accuracy"].item() == pytest.approx(accuracy_score(batch.labels, predicted))
    assert found["f1"].item() == pytest.approx(f1_score(batch.labels, predicted, average="macro"))
    assert found["confusion_matrix"].tolist() == confusion_matrix(batch.labels, predicted).tolist()


@pytest.mark.parametrize(
    ("stage", "names"),
    [("train", {"accuracy"}), ("val", {"accuracy", "f1"}), ("test", {"accuracy", "f1", "confusion_matrix"})],
)
def test_each_stage_measures_what_it_can_afford(stage: Any, names: set[str]) -> None:
    assert set(make_task().build_metrics(stage)) == names


def test_predictions_name_the_best_classes_with_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0], [3.0, 0.0, 0.0, 0.0]])
    first, second = make_task().predict(batch_of(logits, torch.tensor([2, -1])))
    total = 1 + math.exp(2) + math.exp(1) + math.exp(-1)
    expected = {"dog": math.exp(2) / total, "eel": math.e / total, "cat": 1 / total, "fox": math.exp(-1) / total}
    assert first["label"] == "dog"
    assert first["score"] == pytest.approx(expected["dog"])
    assert first["top"] == pytest.approx(expected)
    assert list(first["top"]) == list(expected), "the best first"
    assert first["truth"] == "eel"
    assert second["label"] == "cat"
    assert "truth" not in second


def test_of_many_classes_five_are_named() -> None:
    names = tuple(f"class {index}" for index in range(8))
    [record] = make_task(names).predict(batch_of(torch.arange(8.0)[None], torch.tensor([0])))
    assert list(record["top"]) == [f"class {index}" for index in (7, 6, 5, 4, 3)]


@pytest.mark.parametrize(
    ("record", "colour"),
    [
        ({"label": "cat", "score": 0.75, "truth": "cat"}, RIGHT),
        ({"label": "cat", "score": 0.75, "truth": "dog"}, WRONG),
        ({"label": "cat", "score": 0.75}, NEUTRAL),
    ],
)
def test_the_colour_of_a_picture_says_whether_it_was_right(record: dict[str, Any], colour: str) -> None:
    picture = make_task().draw(Image.new("L", (28, 28)), record)
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == tuple(round(255 * x) for x in to_rgb(colour))


def test_the_test_draws_its_confusion_matrix() -> None:
    counts = torch.tensor([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 2, 2]])
    [(name, figure)] = make_task().draw_results({"confusion_matrix": counts}).items()
    assert name == "confusion_matrix"
    assert figure.axes[0].get_title() == f"test accuracy {13 / 16:.4f}"
    assert make_task().draw_results({}) == {}


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_cannot_be(smoothing: float) -> None:
    with pytest.raises(UsageError, match=f"label_smoothing is {smoothing}; it must be at least 0 and below 1"):
        ImageClassifier(net=Given, label_smoothing=smoothing)


class Refusing(Given):
    """Like a vision transformer, refuses images below a size in its own way."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] >= 7, "wrong image size"
        return super().forward(images)


class Strange(Given):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("expected sentences")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Refusing, "Refusing cannot take 4x4 images: the smallest that works is 7x7."),
        (LeNet, "LeNet cannot take 4x4 images: the smallest that works is 12x12."),
        (Strange, "Strange cannot take 4x4 images: expected sentences"),
    ],
)
def test_images_that_a_network_cannot_take(net: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(net=net)
    assert str(caught.value).startswith(message)


def test_it_learns_and_the_test_says_how_well(tmp_path: Any) -> None:
    """The fabricated classes differ by the place of a bright patch: a few epochs are enough for most of them."""
    torch.manual_seed(0)
    arguments = FashionMNIST.fabricate(tmp_path)
    task = ImageClassifier(net=lenet_relu, optimizer=adam)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=8, accelerator="cpu", enable_model_summary=False, **quiet)
    data = FashionMNIST(**arguments)
    trainer.fit(task, data)

    [found] = trainer.test(task, data, verbose=False)

    batch = data.transform(data.splits["test"].__getitems__(range(27)), training=False)
    with torch.no_grad():
        logits = task.eval()(batch.images)
    assert found["test/loss"] == pytest.approx(log_loss(batch.labels, logits.softmax(1), labels=range(10)), rel=1e-4)
    assert found["test/accuracy"] == pytest.approx(accuracy_score(batch.labels, logits.argmax(1)))
    assert found["test/f1"] == pytest.approx(f1_score(batch.labels, logits.argmax(1), average="macro"))
    assert found["test/accuracy"] > 0.8
    assert task.results["confusion_matrix"].sum() == 27


def lenet_relu(in_channels: int, num_classes: int) -> nn.Module:
    return LeNet(in_channels, num_classes, activation="relu", pooling="max")


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)
