"""The metrics of segmentation, from one confusion matrix over all pixels of an epoch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from leyden.metrics import names_of_classes


def most_likely(logits: Tensor) -> Tensor:
    """The class with the largest logit: (B, K, H, W) to (B, H, W) int64."""
    return logits.max(dim=1).indices  # on a CPU argmax takes four times as long across a middle dimension


def count_pixels(predicted: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """How often each true class was taken for each: (K + 1, K) int64; true classes are rows, the last one is void.

    predicted: classes of any shape and integer type. masks: uint8 of the same shape, true classes; K and more is void.
    """
    rows = masks.clamp(max=num_classes).to(torch.int32)  # bincount reads the narrower type faster
    cells = rows.mul_(num_classes).add_(predicted)
    return torch.bincount(cells.flatten(), minlength=(num_classes + 1) * num_classes).view(-1, num_classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """Of each class (K,) float32: true and predicted pixels over true or predicted ones; NaN where there are none.

    counts: (K + 1, K) int64 as of `count_pixels`; void pixels count nowhere.
    """
    labelled = counts[:-1]
    both = labelled.diagonal()
    return both / (labelled.sum(dim=0) + labelled.sum(dim=1) - both)


class SegmentationScores(Metric):
    """Mean IoU and pixel accuracies over all pixels of an epoch, not averaged over batches.

    mean_iou: the mean over the classes that occur, in truth or prediction. pixel_accuracy: the share of labelled
    pixels that are right. pixel_accuracy_book: of all pixels, with void taken for the first class. NaN where there is
    nothing to count.

    Args:
        num_classes: K.

    Source:
        Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", 2015, section 5; Dive into
        Deep Learning, 14.11, for the last.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # integers: a float32 stops counting at 16 million pixels
        counts = torch.zeros((num_classes + 1, num_classes), dtype=torch.int64)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Counts (N, K + 1, K) int64 of `count_pixels`."""
        self.counts += counts.sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        """The scores, by name; scalars."""
        right = self.counts[:-1].diagonal().sum()
        return {
            "mean_iou": intersection_over_union(self.counts).nanmean(),
            "pixel_accuracy": right / self.counts[:-1].sum(),
            "pixel_accuracy_book": (right + self.counts[-1, 0]) / self.counts.sum(),
        }


class DetailedScores(SegmentationScores):
    """The same, with `iou_...` of each class that occurs, and the `confusion_matrix` (K + 1, K).

    Args:
        class_names: of all K classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__(len(class_names))
        self.names = names_of_classes("iou", class_names)

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and the matrix."""
        of_classes = zip(self.names, intersection_over_union(self.counts), strict=True)
        occurring = {name: value for name, value in of_classes if not value.isnan()}
        return {**super().compute(), **occurring, "confusion_matrix": self.counts}
