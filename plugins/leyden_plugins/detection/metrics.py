"""The metrics of detection: mean average precision over whole images, and the book's two errors of anchors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from leyden.metrics import names_of_classes

BEYOND_ALL_AREAS = 1e12  # square pixels; what is larger than the largest area that is asked for is ignored
AT_HALF, AT_THREE_QUARTERS = 0, 5  # places of the IoU thresholds .5 and .75 among .5, .55, ..., .95


class AnchorErrors(Metric):
    """How often anchors are given a wrong class, and how far off their offsets are.

    class_error: the share of all anchors. box_mae: the mean absolute error of the offsets of the anchors that have a
    box, over all anchors; in units of `offsets.encode`.

    Source: Dive into Deep Learning, 14.7.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, errors: Tensor, *further: Tensor) -> None:
        """Errors (N, 2): class error and box MAE of each image."""
        self.total += errors.sum(dim=0)
        self.count += len(errors)

    def compute(self) -> dict[str, Tensor]:
        """The two errors, scalars; NaN where there were no images."""
        class_error, box_mae = self.total / self.count
        return {"class_error": class_error, "box_mae": box_mae}


class AveragePrecision(Metric):
    """Mean average precision of all classes that occur.

    map: the mean over the IoU thresholds .5, .55, ..., .95; map_50, map_75: at one of them. Difficult things that are
    found count neither as right nor as wrong, and are not missed where they are not found.

    It keeps numbers of things only, and puts them together when all images were seen: torchmetrics' own metric cannot
    be shared by processes that have unequal numbers of images.

    Args:
        class_names: of all K classes.
        max_detections: at most so many things are found in an image.
        detailed: also `ap_...` (mean over the thresholds) and `ap50_...` of each class that occurs, and for drawing
            `precision_at_recall` (K, 101) at IoU .5 and recall 0, .01, ..., 1; NaN for a class that does not occur.

    Source: Lin et al., "Microsoft COCO", 2014, as torchmetrics computes it.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    found: list[Tensor]
    found_counts: list[Tensor]
    true: list[Tensor]
    true_counts: list[Tensor]

    def __init__(self, class_names: Sequence[str], max_detections: int, detailed: bool = False) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.max_detections = max_detections
        self.detailed = detailed
        for name in ("found", "found_counts", "true", "true_counts"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, errors: Tensor, found: Tensor, found_counts: Tensor, true: Tensor, true_counts: Tensor) -> None:
        """Things of a batch, image after image.

        errors: (B, 2), not used. found: (N, 6) float32 xyxy in pixels, score, class index. true: (T, 6) float32 xyxy,
        class index, 1 where it is difficult. found_counts, true_counts: (B,) int64, how many each image has.
        """
        for state, value in (
            (self.found, found),
            (self.found_counts, found_counts),
            (self.true, true),
            (self.true_counts, true_counts),
        ):
            state.append(value)

    def compute(self) -> dict[str, Tensor]:
        """The scores by name; NaN where no thing was to be found."""
        found, true = (
            torch.split(_joined(things), _joined(counts).tolist())
            for things, counts in ((self.found, self.found_counts), (self.true, self.true_counts))
        )
        scorer = MeanAveragePrecision(
            backend="faster_coco_eval",
            max_detection_thresholds=[1, 10, self.max_detections],
            extended_summary=True,
            sync_on_compute=False,
        )
        scorer.warn_on_many_detections = False
        scorer.update([_as_found(each) for each in found], [_as_true(each) for each in true])
        scores: dict[str, Any] = scorer.compute()
        # thresholds, recalls, classes, areas, numbers of detections; -1 where a class has nothing to be found
        precision = scores["precision"][:, :, :, 0, -1]
        precision = precision.masked_fill(precision < 0, torch.nan)
        of_classes = precision.mean(dim=1)  # (10, classes seen)
        result = {
            "map": of_classes.nanmean(),
            "map_50": of_classes[AT_HALF].nanmean(),
            "map_75": of_classes[AT_THREE_QUARTERS].nanmean(),
        }
        if self.detailed:
            seen = scores["classes"].view(-1).tolist()
            result |= self._details(precision, of_classes, seen)
        return {name: value.float().to(self.device) for name, value in result.items()}

    def _details(self, precision: Tensor, of_classes: Tensor, seen: Sequence[int]) -> dict[str, Tensor]:
        curves = torch.full((len(self.class_names), precision.shape[1]), torch.nan)
        names, names_at_half = (names_of_classes(prefix, self.class_names) for prefix in ("ap", "ap50"))
        result = {}
        for place, label in enumerate(seen):
            average = of_classes[:, place]
            if average.isnan().all():
                continue
            curves[label] = precision[AT_HALF, :, place]
            result[names[label]] = average.mean()
            result[names_at_half[label]] = average[AT_HALF]
        return {**result, "precision_at_recall": curves}


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """What was appended, or joined by torchmetrics already, on the CPU."""
    return (torch.cat(parts) if isinstance(parts, list) else parts).cpu()


def _as_found(things: Tensor) -> dict[str, Tensor]:
    return {"boxes": things[:, :4], "scores": things[:, 4], "labels": things[:, 5].long()}


def _as_true(things: Tensor) -> dict[str, Tensor]:
    """A thing of an area that nobody asks for is what COCO's evaluation ignores."""
    boxes = things[:, :4]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    areas = torch.where(things[:, 5] > 0, BEYOND_ALL_AREAS, areas)
    return {"boxes": boxes, "labels": things[:, 4].long(), "area": areas}
