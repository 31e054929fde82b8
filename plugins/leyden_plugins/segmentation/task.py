"""Segmenter: the class of each pixel of a picture."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MetricCollection

from leyden import draw
from leyden.batches import VOID, SegmentationFacts, SegmentedImages
from leyden.errors import UsageError
from leyden.networks import dry_run
from leyden.task import Record, Stage, Task
from leyden_plugins.segmentation.losses import dice_loss, summed_cross_entropy
from leyden_plugins.segmentation.metrics import (
    DetailedScores,
    SegmentationScores,
    count_pixels,
    intersection_over_union,
    most_likely,
)
from leyden_plugins.segmentation.windows import predict_in_windows

TRIAL_SIZE = (45, 71)  # pixels; no stride divides both, so that a network that does not pad and crop is found


class Scored(NamedTuple):
    """Images of a batch that have one size, with what the network makes of them.

    places: (n,) where they are in the batch.
    logits: (n, num_classes, h, w).
    masks: (n, h, w) uint8 true classes, VOID where unknown.
    """

    places: list[int]
    logits: Tensor
    masks: Tensor


class Segmenter(Task[SegmentedImages]):
    """Says of each pixel what it shows: cross-entropy and Dice loss; mean IoU, pixel accuracy, coloured masks.

    Void pixels count nowhere. The network sees each image at its own size, whatever others are in its batch.

    Args:
        net: the network, called as net(in_channels, num_classes); maps float32 images (B, C, H, W) of any size to
            logits (B, num_classes, H, W).
        class_weights: one for each class, 0 or more: the cross-entropy of a pixel is multiplied by that of its true
            class. Without them all are 1.
        dice: weight of the soft Dice loss, which is added to the cross-entropy; 0 leaves it out.
        window: side in pixels. Evaluation and prediction take larger images in overlapping windows of this size, and
            blend what overlaps; without it they take all images whole.
        overlap: the share of a window, in [0, 1), that its neighbour covers at least.
        flip_averaging: evaluation and prediction average the probabilities of each image and of its mirror image.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a value out of its range, for class_weights that are not one for each class, and for a network
            that gives no logits of the images' size.
    """

    monitor = "val/mean_iou"
    mode = "max"
    sample_sheet = (6, 1)
    facts: SegmentationFacts
    class_weights: Tensor | None

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        class_weights: list[float] | None = None,
        dice: float = 0.0,
        window: int | None = None,
        overlap: float = 0.5,
        flip_averaging: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_class_weights(class_weights)
        if not 0 <= dice < math.inf:
            raise UsageError(f"dice is {dice}; it must be 0 (off) or more.")
        if window is not None and window < 1:
            raise UsageError(f"window is {window}; it must be at least 1 pixel (or null: whole images).")
        if not 0 <= overlap < 1:
            raise UsageError(f"overlap is {overlap}; it must be at least 0 and below 1.")
        self.network_factory = net
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.dice = dice
        self.window = window
        self.overlap = overlap
        self.flip_averaging = flip_averaging

    def build_network(self) -> nn.Module:
        """The network for the data's channels and classes, tried on a blank image."""
        channels, num_classes = self.facts.channels, len(self.facts.class_names)
        if self.class_weights is not None and len(self.class_weights) != num_classes:
            raise UsageError(
                f"class_weights has {len(self.class_weights)} numbers, expected {num_classes}, one for each class: "
                f"{', '.join(self.facts.class_names)}."
            )
        net = self.network_factory(channels, num_classes)
        height, width = TRIAL_SIZE
        try:
            logits: Any = dry_run(net, torch.zeros(1, channels, height, width))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"{type(net).__name__} cannot take a {height}x{width} image: {error}") from error
        expected = (1, num_classes, height, width)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UsageError(
                f"{type(net).__name__} gives {found} for a {height}x{width} image, expected logits {expected}: of each "
                "class at each pixel. A network that classifies whole pictures does not serve here."
            )
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """Mean IoU and pixel accuracies; in the test also the IoU of each class and the confusion matrix."""
        names = self.facts.class_names
        return MetricCollection(
            {"scores": DetailedScores(names) if stage == "test" else SegmentationScores(len(names))}
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) float32 to logits (B, num_classes, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def outputs(self, batch: SegmentedImages) -> list[Scored]:
        """Logits of all images, by size."""
        return list(self._scored(batch))

    def loss(self, outputs: list[Scored], batch: SegmentedImages) -> Tensor:
        """The mean over the labelled pixels of cross-entropy, plus `dice` times each image's Dice loss.

        0 where no pixel is labelled. An image's Dice loss counts as often as it has labelled pixels, so that the mean
        of an epoch does not depend on how it is cut into batches.
        """
        total = torch.stack([self._summed_loss(each.logits.float(), each.masks) for each in outputs]).sum()
        return total / max(1, self.weight(batch))

    def weight(self, batch: SegmentedImages) -> int:
        """Its labelled pixels."""
        return int((batch.masks != VOID).sum())

    def measure(self, outputs: list[Scored], batch: SegmentedImages) -> tuple[Tensor]:
        """How often each class was taken for each: (1, K + 1, K) int64, as of `count_pixels`."""
        num_classes = len(self.facts.class_names)
        counts = [count_pixels(most_likely(each.logits), each.masks, num_classes) for each in outputs]
        return (torch.stack(counts).sum(dim=0, keepdim=True),)

    def predict(self, batch: SegmentedImages) -> list[Record]:
        """The `areas` of the classes as shares of the image, the largest first; `label`, the class of the largest.

        For drawing the `mask` (H, W) uint8, and `truth`, which is the same, where anything is labelled.
        """
        records: dict[int, Record] = {}
        for places, logits, masks in self._scored(batch):
            predicted = most_likely(logits).to(torch.uint8).cpu()
            for place, mask, truth in zip(places, predicted, masks.cpu(), strict=True):
                areas = self._areas(mask)
                records[place] = {"label": next(iter(areas)), "areas": areas, "mask": mask}
                if (truth != VOID).any():
                    records[place]["truth"] = truth
        return [records[place] for place in range(len(batch.sizes))]

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The picture in its classes' colours, above a legend; beside picture and truth where the truth is known."""
        if "truth" not in record:
            return self._coloured(draw.enlarged(picture), record["mask"])
        small = draw.panel(picture)
        iou = intersection_over_union(
            count_pixels(record["mask"], record["truth"], len(self.facts.class_names))
        ).nanmean()
        return draw.side_by_side(
            {
                "picture": small,
                "truth": self._coloured(small, record["truth"]),
                f"prediction: mean IoU {iou:.2f}": self._coloured(small, record["mask"]),
            }
        )

    def draw_files(self, picture: Image.Image, record: Record) -> dict[str, Image.Image]:
        """`mask`: the class indices as a palette picture of the picture's size, as in Pascal VOC."""
        return {"mask": draw.fitted_mask(draw.mask_image(record["mask"], self.facts.palette), picture)}

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """The confusion matrix of the test, and the IoU of each class."""
        if "confusion_matrix" not in results:
            return {}
        counts, names = results["confusion_matrix"].cpu(), self.facts.class_names
        ious = intersection_over_union(counts)
        title = f"test mean IoU {ious.nanmean():.4f}"
        found = {name: iou for name, iou in zip(names, ious.tolist(), strict=True) if not math.isnan(iou)}
        colours = [self.facts.palette[names.index(name)] for name in found]
        return {"confusion_matrix": draw.matrix(counts[:-1], names, title), "iou": draw.bars(found, title, colours)}

    def _scored(self, batch: SegmentedImages) -> Iterator[Scored]:
        """One size after the other; images that are taken in windows one by one, since they are large."""
        for (height, width), places in self._by_size(batch.sizes.tolist()):
            chosen = slice(None) if len(places) == len(batch.sizes) else places  # a view where all are alike
            images = batch.images[chosen, :, :height, :width]
            yield Scored(places, self._logits(images), batch.masks[chosen, :height, :width])

    def _by_size(self, sizes: list[list[int]]) -> list[tuple[tuple[int, int], list[int]]]:
        groups: list[tuple[tuple[int, int], list[int]]] = []
        for height, width in dict.fromkeys((height, width) for height, width in sizes):
            places = [place for place, size in enumerate(sizes) if size == [height, width]]
            alone = self._needs_windows(height, width)
            groups += [((height, width), [place]) for place in places] if alone else [((height, width), places)]
        return groups

    def _needs_windows(self, height: int, width: int) -> bool:
        return self.window is not None and not self.training and max(height, width) > self.window

    def _logits(self, images: Tensor) -> Tensor:
        if self.training or not self.flip_averaging:
            return self._logits_of_one_view(images)
        upright, mirrored = (
            self._logits_of_one_view(view).float().log_softmax(dim=1) for view in (images, images.flip(3))
        )
        return torch.logaddexp(upright, mirrored.flip(3))  # of twice the mean, which as logits is the mean itself

    def _logits_of_one_view(self, images: Tensor) -> Tensor:
        if self.window is None or not self._needs_windows(*images.shape[-2:]):
            logits: Tensor = self(images)
            return logits
        return predict_in_windows(self, images, self.window, self.overlap)

    def _summed_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        total = summed_cross_entropy(logits, masks, self.class_weights)
        if self.dice:
            pixels = (masks != VOID).sum(dim=(1, 2))
            total = total + self.dice * (dice_loss(logits, masks) * pixels).sum()
        return total

    def _areas(self, mask: Tensor) -> dict[str, float]:
        """The shares of a mask's pixels, void left out."""
        pixels = torch.bincount(mask.flatten(), minlength=VOID + 1)[: len(self.facts.class_names)]
        order = pixels.argsort(descending=True, stable=True).tolist()
        shares = (pixels.double() / mask.numel()).tolist()
        return {self.facts.class_names[index]: shares[index] for index in order if pixels[index]}

    def _coloured(self, picture: Image.Image, mask: Tensor) -> Image.Image:
        names, palette = self.facts.class_names, self.facts.palette
        shares = {name: f"{share:.1%}" if share >= 0.001 else "<0.1%" for name, share in self._areas(mask).items()}
        legend = {f"{name} {share}": palette[names.index(name)] for name, share in shares.items()}
        return draw.with_legend(draw.painted(picture, mask, palette), legend)


def _check_class_weights(weights: list[float] | None) -> None:
    if weights is None:
        return
    if bad := [weight for weight in weights if not 0 <= weight < math.inf]:
        raise UsageError(f"class_weights has {bad[0]}; each must be 0 (the class is not learnt) or more.")
    if not any(weights):
        raise UsageError("class_weights has no number above 0: nothing would be learnt.")
