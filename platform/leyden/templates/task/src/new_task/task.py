"""The task: what loss, metrics, predictions and pictures are. leyden does the rest."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from leyden.draw import NEUTRAL, RIGHT, WRONG, captioned, matrix
from leyden.errors import UsageError
from leyden.networks import dry_run
from leyden.task import Record, Stage, Task
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from new_task.batch import SignalFacts, Signals


class NewTask(Task[Signals]):
    """Classifies signals: cross-entropy, accuracy, confusion matrix.

    Args:
        net: the network, called as net(num_classes); maps float32 signals (B, L) to logits (B, num_classes).
        **task: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a network that does not fit the data.
    """

    monitor = "val/accuracy"  # what picks the best checkpoint, and
    mode = "max"  # which of two values of it is the better
    facts: SignalFacts

    def __init__(self, net: Callable[[int], nn.Module], **task: Any) -> None:
        super().__init__(**task)
        self.network_factory = net

    def build_network(self) -> nn.Module:
        """The network for the data's classes, tried on one silent signal."""
        net = self.network_factory(len(self.facts.class_names))
        try:
            logits = dry_run(net, torch.zeros(1, self.facts.length))
        except (RuntimeError, AssertionError) as error:
            name, length = type(net).__name__, self.facts.length
            raise UsageError(f"{name} cannot take signals of {length} samples: {error}") from error
        expected = (1, len(self.facts.class_names))
        if logits.shape != expected:
            raise UsageError(f"{type(net).__name__} gives {tuple(logits.shape)} for one signal, expected {expected}.")
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """Accuracy always; the confusion matrix in the test."""
        num_classes = len(self.facts.class_names)
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(num_classes, average="micro")}
        if stage == "test":
            metrics["confusion_matrix"] = MulticlassConfusionMatrix(num_classes)
        return MetricCollection(metrics)

    def outputs(self, batch: Signals) -> Tensor:
        """Logits (B, num_classes)."""
        logits: Tensor = self.network(batch.samples)
        return logits

    def loss(self, outputs: Tensor, batch: Signals) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(outputs, batch.labels)

    def measure(self, outputs: Tensor, batch: Signals) -> tuple[Tensor, Tensor]:
        """Predicted and true classes (B,)."""
        return outputs.argmax(dim=1), batch.labels

    def predict(self, batch: Signals) -> list[Record]:
        """`label`, its `score` (probability), and `truth` where it is known."""
        names = self.facts.class_names
        best = self.outputs(batch).float().softmax(dim=1).max(dim=1)
        records: list[Record] = []
        for index, score, truth in zip(best.indices.tolist(), best.values.tolist(), batch.labels.tolist(), strict=True):
            record: Record = {"label": names[index], "score": score}
            records.append(record | {"truth": names[truth]} if truth >= 0 else record)
        return records

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The signal's curve above its predicted class; green or red where the true one is known."""
        label, truth = record["label"], record.get("truth")
        if truth is None:
            return captioned(picture, f"{label} {record['score']:.0%}", NEUTRAL)
        if truth == label:
            return captioned(picture, truth, RIGHT)
        return captioned(picture, f"{label}, not {truth}", WRONG)

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """The confusion matrix of the test."""
        if "confusion_matrix" not in results:
            return {}
        counts = results["confusion_matrix"]
        accuracy = counts.diagonal().sum() / counts.sum()
        return {"confusion_matrix": matrix(counts, self.facts.class_names, f"test accuracy {accuracy:.4f}")}
