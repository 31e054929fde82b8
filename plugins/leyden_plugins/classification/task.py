"""ImageClassifier: one class for each picture."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from leyden.batches import ImageFacts, LabelledImages
from leyden.draw import NEUTRAL, RIGHT, WRONG, captioned, matrix
from leyden.errors import UsageError
from leyden.networks import dry_run, smallest_image_size
from leyden.rules import wrong_output
from leyden.task import Record, Stage, Task

TOP = 5  # how many classes a prediction names


class ImageClassifier(Task[LabelledImages]):
    """Classifies pictures: cross-entropy, accuracy, macro-F1, confusion matrix.

    Args:
        net: the network, called as net(in_channels, num_classes); maps float32 images (B, C, H, W) to logits
            (B, num_classes).
        label_smoothing: probability mass in [0, 1) spread over all classes in training (Szegedy et al., "Rethinking
            the Inception Architecture", 2016, section 7).
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for options that the network refuses, and for images that are too small for it.
    """

    monitor = "val/accuracy"
    mode = "max"
    facts: ImageFacts

    def __init__(self, net: Callable[[int, int], nn.Module], label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1.")
        self.network_factory = net
        self.label_smoothing = label_smoothing

    def build_network(self) -> nn.Module:
        """The network for the data's channels and classes, tried on one blank image of the data's size."""
        net = self._new_network()
        channels, (height, width) = self.facts.channels, self.facts.image_size
        try:
            logits: Any = dry_run(net, torch.zeros(1, channels, height, width))
        except (RuntimeError, AssertionError) as error:
            smallest = smallest_image_size(self._new_network, channels, above=min(height, width))
            if smallest is None:
                raise UsageError(f"{type(net).__name__} cannot take {height}x{width} images: {error}") from error
            raise UsageError(
                f"{type(net).__name__} cannot take {height}x{width} images: the smallest that works is "
                f"{smallest}x{smallest}. Enlarge them, for example by --data.resize {smallest}."
            ) from error
        expected = (1, len(self.facts.class_names))
        if breach := wrong_output(logits, "one image", expected, f"num_classes {expected[1]}"):
            raise breach.error(type(net))
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """Accuracy always; macro-F1 in evaluation; the confusion matrix in the test."""
        num_classes = len(self.facts.class_names)
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if stage != "train":
            metrics["f1"] = MulticlassF1Score(num_classes, average="macro", validate_args=False)
        if stage == "test":
            metrics["confusion_matrix"] = MulticlassConfusionMatrix(num_classes, validate_args=False)
        return MetricCollection(metrics)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) float32 to logits (B, num_classes)."""
        logits: Tensor = self.network(images)
        return logits

    def outputs(self, batch: LabelledImages) -> Tensor:
        """Logits (B, num_classes)."""
        logits: Tensor = self(batch.images)
        return logits

    def loss(self, outputs: Tensor, batch: LabelledImages) -> Tensor:
        """Mean cross-entropy; labels are smoothed in training only."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(outputs, batch.labels, label_smoothing=smoothing)

    def measure(self, outputs: Tensor, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Predicted and true classes (B,); where images were mixed, the class with the larger share counts as true."""
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(dim=1)
        return outputs.argmax(dim=1), labels

    def predict(self, batch: LabelledImages) -> list[Record]:
        """`label`, its `score` (probability), the `top` classes with their scores, and `truth` where it is known."""
        names = self.facts.class_names
        top = self(batch.images).float().softmax(dim=1).topk(min(TOP, len(names)))
        records: list[Record] = []
        rows = zip(top.indices.tolist(), top.values.tolist(), batch.labels.tolist(), strict=True)
        for indices, scores, label in rows:
            best = {names[index]: score for index, score in zip(indices, scores, strict=True)}
            record: Record = {"label": names[indices[0]], "score": scores[0], "top": best}
            records.append(record | {"truth": names[label]} if label >= 0 else record)
        return records

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The picture above its predicted class; green or red where the true one is known."""
        truth = record.get("truth")
        if truth is None:
            return captioned(picture, f"{record['label']} {record['score']:.0%}", NEUTRAL)
        if truth == record["label"]:
            return captioned(picture, truth, RIGHT)
        return captioned(picture, f"{record['label']}, not {truth}", WRONG)

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """The confusion matrix of the test."""
        if "confusion_matrix" not in results:
            return {}
        counts = results["confusion_matrix"]
        accuracy = counts.diagonal().sum() / counts.sum()
        return {"confusion_matrix": matrix(counts, self.facts.class_names, f"test accuracy {accuracy:.4f}")}

    def _new_network(self) -> nn.Module:
        return self.network_factory(self.facts.channels, len(self.facts.class_names))
