"""Detector: which things a picture shows, and where."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MetricCollection

from leyden import draw
from leyden.batches import BoxedImages, DetectionFacts
from leyden.errors import UsageError
from leyden.networks import dry_run
from leyden.task import Record, Stage, Task
from leyden_plugins.detection.anchors import AnchorGrid, AnchorOutputs
from leyden_plugins.detection.decoding import Found, find_things
from leyden_plugins.detection.losses import (
    BoxLoss,
    anchor_box_loss,
    anchor_cross_entropy,
    focal_loss,
    mean_over_anchors,
    mean_over_positives,
    with_hard_negatives,
)
from leyden_plugins.detection.matching import Targets, assign
from leyden_plugins.detection.metrics import AnchorErrors, AveragePrecision

TRIAL_SIZE = (256, 384)  # pixels
SHOWN_IN_FIGURE = 10  # classes whose curves of precision and recall are drawn


class Compared(NamedTuple):
    """What the network says of the anchors of a batch, and what it should have said.

    logits: (B, A, num_classes + 1). offsets: (B, A, 4). anchors: (A, 4) xyxy in pixels. targets: of each anchor.
    """

    logits: Tensor
    offsets: Tensor
    anchors: Tensor
    targets: Targets


class Detector(Task[BoxedImages]):
    """Finds things: boxes by offsets from anchors, classes by cross-entropy or focal loss; mean average precision.

    The loss of an image does not depend on the others of its batch: it is divided by the number of its own anchors that
    have a box.

    Args:
        net: the network, called as net(in_channels, num_classes); maps float32 images (B, C, H, W) to AnchorOutputs,
            and has an AnchorGrid as `anchors`.
        class_loss: cross_entropy, or focal: cross-entropy in which anchors that are easy hardly count; of all anchors.
        negative_ratio: of cross_entropy: of the anchors that show background only the hardest count, this many times as
            many as those that have a box. None counts all and takes means over all anchors, which is the book's loss.
        box_loss: of the offsets of the anchors that have a box, l1 or smooth_l1.
        box_weight: what the loss of the boxes is multiplied by.
        match_iou: an anchor is to find the box with which it has the largest IoU, if that is at least this; and each
            box has at least one anchor.
        nms_iou: of two boxes of one class that have a larger IoU, the one with the lower score is left out.
        score_threshold: evaluation counts things of a higher probability than this.
        shown_score: `predict` and the samples show things of at least this probability.
        max_detections: at most so many things are found in an image, the best ones.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a value out of its range, and for a network that does not say something of each of its anchors.
    """

    monitor = "val/map"
    mode = "max"
    sample_sheet = (5, 2)
    facts: DetectionFacts

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        class_loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        negative_ratio: float | None = 3.0,
        box_loss: BoxLoss = "smooth_l1",
        box_weight: float = 1.0,
        match_iou: float = 0.5,
        nms_iou: float = 0.5,
        score_threshold: float = 0.01,
        shown_score: float = 0.5,
        max_detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        shares = {"match_iou": match_iou, "nms_iou": nms_iou}
        for name, value in {**shares, "score_threshold": score_threshold, "shown_score": shown_score}.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}; it must be from 0 to 1.")
        if negative_ratio is not None and not 0 < negative_ratio < math.inf:
            raise UsageError(f"negative_ratio is {negative_ratio}; it must be above 0 (or null: all anchors count).")
        if not 0 <= box_weight < math.inf:
            raise UsageError(f"box_weight is {box_weight}; it must be 0 (boxes are not learnt) or more.")
        if max_detections < 1:
            raise UsageError(f"max_detections is {max_detections}; it must be at least 1.")
        self.network_factory = net
        self.class_loss = class_loss
        self.negative_ratio = negative_ratio
        self.box_loss = box_loss
        self.box_weight = box_weight
        self.match_iou = match_iou
        self.nms_iou = nms_iou
        self.score_threshold = score_threshold
        self.shown_score = shown_score
        self.max_detections = max_detections

    def build_network(self) -> nn.Module:
        """The network for the data's channels and classes, tried on a blank image."""
        channels, num_classes = self.facts.channels, len(self.facts.class_names)
        net = self.network_factory(channels, num_classes)
        height, width = TRIAL_SIZE
        name = type(net).__name__
        try:
            outputs: Any = dry_run(net, torch.zeros(1, channels, height, width))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"{name} cannot take a {height}x{width} image: {error}") from error
        grid: Any = getattr(net, "anchors", None)
        if not isinstance(grid, AnchorGrid) or not isinstance(outputs, AnchorOutputs):
            raise UsageError(
                f"{name} gives a {type(outputs).__name__}, expected AnchorOutputs, and an AnchorGrid as `anchors`: "
                "what it says of each anchor. A network that classifies pictures or their pixels does not serve here."
            )
        if len(outputs.map_sizes) != len(grid.sizes):
            raise UsageError(
                f"{name} speaks of {len(outputs.map_sizes)} feature maps, but its AnchorGrid has sizes for "
                f"{len(grid.sizes)}; they must be as many."
            )
        count = len(grid.boxes(outputs.map_sizes, TRIAL_SIZE, outputs.logits.device))
        expected = [(1, count, num_classes + 1), (1, count, 4)]
        found = [tuple(outputs.logits.shape), tuple(outputs.offsets.shape)]
        if found != expected:
            raise UsageError(
                f"{name} gives logits and offsets {found} for a {height}x{width} image with {count} anchors, expected "
                f"{expected}: of each anchor the background and {num_classes} classes, and four offsets."
            )
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """The errors of anchors; in evaluation average precision, in the test also of each class."""
        errors = AnchorErrors()
        if stage == "train":
            return MetricCollection({"errors": errors})
        precision = AveragePrecision(self.facts.class_names, self.max_detections, detailed=stage == "test")
        return MetricCollection({"errors": errors, "precision": precision})

    def forward(self, images: Tensor) -> AnchorOutputs:
        """Images (B, C, H, W) float32 to what is said of their anchors."""
        outputs: AnchorOutputs = self.network(images)
        return outputs

    def anchors_of(self, outputs: AnchorOutputs, images: Tensor) -> Tensor:
        """The anchors (A, 4) xyxy in pixels that were spoken of."""
        grid: Any = self.network.anchors
        anchors: Tensor = grid.boxes(outputs.map_sizes, tuple(images.shape[-2:]), images.device)
        return anchors

    def outputs(self, batch: BoxedImages) -> Compared:
        """What is said of the anchors, and what each is to say."""
        outputs = self(batch.images)
        anchors = self.anchors_of(outputs, batch.images)
        targets = assign(anchors, batch.boxes, batch.labels, self.match_iou)
        return Compared(outputs.logits.float(), outputs.offsets.float(), anchors, targets)

    def loss(self, outputs: Compared, batch: BoxedImages) -> Tensor:
        """The mean over the images."""
        classes = outputs.targets.classes
        box_losses = self.box_weight * anchor_box_loss(outputs.offsets, outputs.targets, self.box_loss)
        if self.class_loss == "focal":
            return mean_over_positives(focal_loss(outputs.logits, classes), box_losses, classes).mean()
        class_losses = anchor_cross_entropy(outputs.logits, classes)
        if self.negative_ratio is None:
            return mean_over_anchors(class_losses, box_losses).mean()
        return with_hard_negatives(class_losses, box_losses, classes, self.negative_ratio).mean()

    def measure(self, outputs: Compared, batch: BoxedImages) -> tuple[Tensor, ...]:
        """The two errors of each image (B, 2); in evaluation also the things, as of `AveragePrecision`."""
        wrong = (outputs.logits.max(dim=-1).indices != outputs.targets.classes).float().mean(dim=1)
        mae = anchor_box_loss(outputs.offsets, outputs.targets, "l1").mean(dim=1) / 4
        errors = torch.stack((wrong, mae), dim=1)
        if self.training:
            return (errors,)
        found = self._find(outputs, outputs.anchors, batch.sizes, self.score_threshold)
        there = batch.labels >= 0
        of_found = (found.boxes, found.scores[:, None], found.labels[:, None])
        of_true = (batch.boxes[there], batch.labels[there][:, None], batch.difficult[there][:, None])
        return errors, torch.cat(of_found, dim=1), found.counts, torch.cat(of_true, dim=1), there.sum(dim=1)

    def predict(self, batch: BoxedImages) -> list[Record]:
        """The `objects`, each with `label`, `score` and `box` [left, top, right, bottom] in pixels of the picture.

        The best come first. `truth` holds what the batch knows, in the same form without scores.
        """
        outputs = self(batch.images)
        # a little below what is shown: that is decided once scores are rounded
        threshold = min(self.score_threshold, self.shown_score - 1e-4)
        found = self._find(outputs, self.anchors_of(outputs, batch.images), batch.sizes, threshold)
        scales = batch.original_sizes / batch.sizes  # (B, 2) of heights and widths
        scales = scales.flip(1).repeat(1, 2)
        counts = found.counts.tolist()
        parts = zip(*(torch.split(part, counts) for part in found[:3]), scales, strict=True)
        records: list[Record] = [
            {"objects": self._objects(boxes * scale, labels, scores)} for boxes, scores, labels, scale in parts
        ]
        for record, boxes, labels, scale in zip(records, batch.boxes, batch.labels, scales, strict=True):
            if (labels >= 0).any():
                record["truth"] = self._objects((boxes * scale)[labels >= 0], labels[labels >= 0])
        return records

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The picture with its boxes, at its full size; small and beside the truth where that is known."""
        if "truth" not in record:
            return self._with_boxes(picture, record["objects"])
        small = draw.panel(picture)
        scale = small.width / picture.width
        panels = {"truth": record["truth"], "prediction": record["objects"]}
        return draw.side_by_side({title: self._with_boxes(small, each, scale) for title, each in panels.items()})

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """Precision over recall of each class at IoU .5, those of the largest area first."""
        if "precision_at_recall" not in results:
            return {}
        curves = results["precision_at_recall"].cpu()
        average = curves.mean(dim=1)
        order = [index for index in average.argsort(descending=True).tolist() if not average[index].isnan()]
        recalls = torch.linspace(0, 1, curves.shape[1]).tolist()
        series = {
            f"{self.facts.class_names[index]} {average[index]:.3f}": list(
                zip(recalls, curves[index].tolist(), strict=True)
            )
            for index in order[:SHOWN_IN_FIGURE]
        }
        title = "precision over recall at IoU .5, with its area"
        figure = draw.lines(series, title, ("recall", "precision"), (0, 1.02))
        return {"precision_recall": figure}

    def _find(self, said: Compared | AnchorOutputs, anchors: Tensor, sizes: Tensor, score_threshold: float) -> Found:
        limits = (score_threshold, self.nms_iou, self.max_detections)
        return find_things(said.logits, said.offsets, anchors, sizes, *limits)

    def _objects(self, boxes: Tensor, labels: Tensor, scores: Tensor | None = None) -> list[dict[str, Any]]:
        objects = [
            {"label": self.facts.class_names[label], "box": [round(value, 2) for value in box]}
            for label, box in zip(labels.tolist(), boxes.tolist(), strict=True)
        ]
        if scores is None:
            return objects
        scored = [{**each, "score": round(score, 4)} for each, score in zip(objects, scores.tolist(), strict=True)]
        return [each for each in scored if each["score"] >= self.shown_score]

    def _with_boxes(self, picture: Image.Image, objects: Sequence[Record], scale: float = 1.0) -> Image.Image:
        names = self.facts.class_names
        colours = dict(zip(names, draw.distinct_colours(len(names)), strict=True))
        captions = [f"{each['label']} {each['score']:.2f}" if "score" in each else each["label"] for each in objects]
        boxes = [[value * scale for value in each["box"]] for each in objects]
        return draw.boxed(picture, boxes, captions, [colours[each["label"]] for each in objects])
