"""Detector: what it computes of given outputs, against formulas and plain Python; pictures by their pixels."""

import contextlib
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leyden import draw
from leyden.batches import BoxedImages, DetectionFacts
from leyden.errors import UsageError
from leyden.main import main
from leyden_datamodules.banana_detection import BananaDetection
from leyden_datamodules.voc_detection import VOCDetection
from leyden_plugins.detection.anchors import AnchorGrid, AnchorOutputs
from leyden_plugins.detection.matching import assign
from leyden_plugins.detection.networks.tiny_ssd import TinySSD
from leyden_plugins.detection.task import Detector

NAMES = ("cat", "dog", "eel")
SIZE = (40, 80)  # of the images of a batch; anchors are two rows of four squares of 20 pixels


class Given(nn.Module):
    """Says of its anchors what a test has chosen: `said`, logits (B, 8, 4) and offsets (B, 8, 4); at first zeros."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.anchors = AnchorGrid([(0.5,)], (1.0,))
        self.scale = nn.Parameter(torch.ones(()))
        self.num_logits = num_classes + 1
        self.said: tuple[Tensor, Tensor] | None = None

    def forward(self, images: Tensor) -> AnchorOutputs:
        zeros = torch.zeros(len(images), 8, 4), torch.zeros(len(images), 8, 4)
        logits, offsets = self.said or zeros
        return AnchorOutputs(self.scale * logits, self.scale * offsets, ((2, 4),))


def make_task(net: Any = Given, **kwargs: Any) -> Detector:
    torch.manual_seed(0)
    task = Detector(net=net, **kwargs)
    task.facts = DetectionFacts(3, NAMES)
    task.configure_model()
    return task


def batch_of(things: list[list[tuple[list[float], int]]], **fields: Tensor) -> BoxedImages:
    """Images of nothing with these boxes and labels."""
    count, most = len(things), max(1, *map(len, things))
    boxes, labels = torch.zeros(count, most, 4), torch.full((count, most), -1)
    for number, image in enumerate(things):
        for place, (box, label) in enumerate(image):
            boxes[number, place], labels[number, place] = torch.tensor(box), label
    sizes = torch.tensor(SIZE).expand(count, 2)
    batch = BoxedImages(
        torch.zeros(count, 3, *SIZE), boxes, labels, torch.zeros(count, most, dtype=torch.bool), sizes, sizes.clone()
    )
    return batch._replace(**fields)


# on the first anchor, between the second and the third, and nowhere near one
THINGS = [[([0.0, 0, 20, 20], 1), ([29.0, 2, 51, 18], 2)], [], [([62.0, 21, 78, 39], 0)]]


def said(seed: int, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, 8, 4, generator=generator), torch.randn(count, 8, 4, generator=generator)


def plain_loss(
    logits: Tensor, offsets: Tensor, batch: BoxedImages, focal: bool, ratio: float | None, kind: str, weight: float
) -> float:
    anchors = AnchorGrid([(0.5,)], (1.0,)).boxes([(2, 4)], SIZE, torch.device("cpu"))
    targets = assign(anchors, batch.boxes, batch.labels)
    each = []
    for image in range(len(logits)):
        positive, negative = [], []
        for a in range(8):
            label = int(targets.classes[image, a])
            nats = -math.log(logits[image, a].double().softmax(0)[label].item())
            nats *= (1 - math.exp(-nats)) ** 2 if focal else 1
            if label == 0:
                negative.append(nats)
                continue
            errors = (offsets[image, a] - targets.offsets[image, a]).abs().tolist()
            smooth = [error**2 / 2 if error < 1 else error - 0.5 for error in errors]
            positive.append((nats, weight * sum(errors if kind == "l1" else smooth)))
        count = max(1, len(positive))
        of_classes, of_boxes = sum(nats for nats, _ in positive), sum(error for _, error in positive)
        if ratio is None and not focal:
            each.append((of_classes + sum(negative)) / 8 + of_boxes / 32)
            continue
        hardest = sorted(negative, reverse=True)[: None if focal or ratio is None else math.ceil(ratio * count)]
        each.append((of_classes + of_boxes + sum(hardest)) / count)
    return sum(each) / len(each)


@pytest.mark.parametrize("class_loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("negative_ratio", [None, 1.0, 2.5])
@pytest.mark.parametrize(("box_loss", "box_weight"), [("l1", 1.0), ("smooth_l1", 0.5), ("l1", 0.0)])
def test_the_loss_is_that_of_a_loop(
    class_loss: Any, negative_ratio: float | None, box_loss: Any, box_weight: float
) -> None:
    task = make_task(class_loss=class_loss, negative_ratio=negative_ratio, box_loss=box_loss, box_weight=box_weight)
    batch, task.net.said = batch_of(THINGS), said(0)
    loss = task.loss(task.outputs(batch), batch)
    expected = plain_loss(*said(0), batch, class_loss == "focal", negative_ratio, box_loss, box_weight)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert task.net.scale.grad.isfinite()


@pytest.mark.parametrize(("match_iou", "classes"), [(0.29, [1, 1, 0, 0]), (0.31, [1, 0, 0, 0]), (0.9, [1, 0, 0, 0])])
def test_anchors_are_matched_from_the_given_overlap_on(match_iou: float, classes: list[int]) -> None:
    """A box 32 pixels wide has an IoU of 20 / 32 with its own anchor, and of 12 / 40 with the next."""
    task = make_task(match_iou=match_iou)
    targets = task.outputs(batch_of([[([0.0, 0, 32, 20], 0)]])).targets
    assert targets.classes.tolist() == [[*classes, 0, 0, 0, 0]]


def test_a_batch_without_boxes_can_be_trained_on() -> None:
    for class_loss in ("cross_entropy", "focal"):
        task = make_task(class_loss=class_loss)
        batch = batch_of([[], []])
        task.net.said = said(0, 2)
        loss = task.loss(task.outputs(batch), batch)
        loss.backward()
        assert loss.isfinite()
        assert loss > 0
        assert task.net.scale.grad.isfinite()


def measured(task: Detector, batch: BoxedImages) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return task.measure(task.outputs(batch), batch)


def test_errors_are_those_of_the_book() -> None:
    """Section 14.7.2.1: the shares of wrong classes, and of absolute errors of masked offsets, over all of them."""
    task, batch = make_task().train(), batch_of(THINGS)
    logits, offsets = task.net.said = said(1)
    [errors] = measured(task, batch)
    anchors = AnchorGrid([(0.5,)], (1.0,)).boxes([(2, 4)], SIZE, torch.device("cpu"))
    targets = assign(anchors, batch.boxes, batch.labels)
    for image in range(3):
        wrong, mae = 0, 0.0
        for a in range(8):
            wrong += int(logits[image, a].argmax()) != int(targets.classes[image, a])
            if targets.classes[image, a] > 0:
                mae += sum((offsets[image, a] - targets.offsets[image, a]).abs().tolist())
        assert errors[image].tolist() == pytest.approx([wrong / 8, mae / 32], rel=1e-5)


def test_a_network_that_sees_background_everywhere_nearly_has_no_error() -> None:
    """Its class error is the share of anchors with a box: 1, 0 and 1 of 8, each its box's own."""
    task, batch = make_task().train(), batch_of([THINGS[0][:1], [], THINGS[2]])
    logits = torch.zeros(3, 8, 4)
    logits[..., 0] = 9
    task.net.said = logits, torch.zeros(3, 8, 4)
    metrics = task.build_metrics("train")
    task.update_metrics(metrics, *measured(task, batch))
    found = metrics.compute()
    assert set(found) == {"class_error", "box_mae"}
    assert found["class_error"].item() == pytest.approx(2 / 24)
    # the third image's box is centred on its anchor and 16 x 18 pixels large; the first's is its anchor
    assert found["box_mae"].item() == pytest.approx(5 * -(math.log(0.8) + math.log(0.9)) / 32 / 3)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_evaluation_has_the_mean_average_precision_of_its_images(batch_size: int) -> None:
    """Each thing is found but one of three; of the second image, which shows nothing, something is said."""
    logits = torch.full((3, 8, 4), -20.0)
    logits[..., 0] = 0
    targets = assign(
        AnchorGrid([(0.5,)], (1.0,)).boxes([(2, 4)], SIZE, torch.device("cpu")),
        batch_of(THINGS).boxes,
        batch_of(THINGS).labels,
    )
    logits[0, 0, 2] = 5.0  # the dog
    logits[1, 3, 1] = 1.0  # no cat
    logits[2, 7, 1] = 2.0  # the cat
    task = make_task().eval()
    metrics = task.build_metrics("test")
    for start in range(0, 3, batch_size):
        part = slice(start, start + batch_size)
        task.net.said = logits[part], targets.offsets[part]
        batch = BoxedImages(*(field[part] for field in batch_of(THINGS)))
        task.update_metrics(metrics, *measured(task, batch))
    found = metrics.compute()
    expected = {"map": 2 / 3, "map_50": 2 / 3, "map_75": 2 / 3, "ap_cat": 1, "ap_dog": 1, "ap_eel": 0}
    assert {name: found[name].item() for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["precision_at_recall"].shape == (3, 101)


def test_what_is_difficult_is_not_missed() -> None:
    task = make_task().eval()
    logits = torch.full((1, 8, 4), -20.0)
    logits[..., 0] = 0
    logits[0, 0, 2] = 5.0
    task.net.said = logits, torch.zeros(1, 8, 4)
    for difficult, expected in (([False, False], 0.5), ([False, True], 1.0)):
        metrics = task.build_metrics("val")
        task.update_metrics(metrics, *measured(task, batch_of(THINGS[:1], difficult=torch.tensor([difficult]))))
        found = metrics.compute()
        assert set(found) == {"class_error", "box_mae", "map", "map_50", "map_75"}
        assert found["map"].item() == pytest.approx(expected)


def speaking(*things: tuple[int, int, float]) -> tuple[Tensor, Tensor]:
    """(anchor, label, score), each anchor's box as it is."""
    logits = torch.full((1, 8, 4), -30.0)
    logits[..., 0] = 0
    for anchor, label, score in things:
        logits[0, anchor, label + 1] = math.log(score / (1 - score))
    return logits, torch.zeros(1, 8, 4)


def test_predictions_are_in_pixels_of_the_picture() -> None:
    """A picture of 300 x 150 pixels was resized to 60 x 30, which lies in the upper left corner of 80 x 40."""
    task = make_task().eval()
    task.net.said = speaking((0, 1, 0.75), (6, 0, 0.9), (7, 2, 0.99), (2, 2, 0.4))
    sizes, originals = torch.tensor([[30, 60]]), torch.tensor([[150, 300]])
    truth = [[([0.0, 0, 20, 20], 1), ([45.0, 10, 60, 30], 2)]]
    [record] = task.predict(batch_of(truth, sizes=sizes, original_sizes=originals))
    assert record["objects"] == [
        {"label": "cat", "box": [200, 100, 300, 150], "score": 0.9},
        {"label": "dog", "box": [0, 0, 100, 100], "score": 0.75},
    ], "the best first; neither beyond the picture, nor less certain than .5"
    assert record["truth"] == [{"label": "dog", "box": [0, 0, 100, 100]}, {"label": "eel", "box": [225, 50, 300, 150]}]
    json.dumps(record)


def test_height_and_width_are_scaled_each_by_its_own() -> None:
    """Whole pixels: 333 x 10 becomes 80 x 2."""
    task = make_task().eval()
    task.net.said = speaking((1, 0, 0.9))
    [record] = task.predict(batch_of([[]], sizes=torch.tensor([[2, 80]]), original_sizes=torch.tensor([[10, 333]])))
    assert record["objects"][0]["box"] == pytest.approx([83.25, 0, 166.5, 10])
    assert "truth" not in record


def test_each_record_is_of_its_own_image() -> None:
    task = make_task(shown_score=0.2).eval()
    parts = [speaking((0, 1, 0.75)), speaking(), speaking((3, 0, 0.3), (5, 2, 0.25))]
    task.net.said = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    records = task.predict(batch_of([[], [([0.0, 0, 9, 9], 2)], []]))
    assert [[each["label"] for each in record["objects"]] for record in records] == [["dog"], [], ["cat", "eel"]]
    assert ["truth" in record for record in records] == [False, True, False]


@pytest.mark.parametrize(("shown_score", "count"), [(0.4999, 1), (0.5, 1), (0.5001, 0)])
def test_a_score_of_the_limit_is_shown(shown_score: float, count: int) -> None:
    task = make_task(shown_score=shown_score, score_threshold=0.6).eval()
    task.net.said = speaking((0, 1, 0.5))
    assert len(task.predict(batch_of([[]]))[0]["objects"]) == count


def test_what_is_shown_does_not_depend_on_what_evaluation_counts() -> None:
    logits, offsets = speaking((0, 1, 0.6), (3, 0, 0.004), (5, 2, 0.001))
    for shown_score, labels in ((0.5, ["dog"]), (0.003, ["dog", "cat"]), (0.0, ["dog", "cat", "eel"])):
        for score_threshold in (0.0, 0.01, 0.9):
            task = make_task(shown_score=shown_score, score_threshold=score_threshold, max_detections=3).eval()
            task.net.said = logits, offsets
            [record] = task.predict(batch_of([[]]))
            assert [each["label"] for each in record["objects"]] == labels


def test_what_overlaps_a_better_one_of_its_class_is_left_out() -> None:
    logits, offsets = speaking((0, 1, 0.9), (1, 1, 0.8), (4, 0, 0.7))
    offsets[0, 1, 0] = -8.0  # 16 of 20 pixels to the left: an IoU of 2 / 3
    offsets[0, 4, 1] = -10.0  # onto the first anchor
    for nms_iou, labels in ((0.5, ["dog", "cat"]), (0.7, ["dog", "dog", "cat"])):
        task = make_task(nms_iou=nms_iou).eval()
        task.net.said = logits, offsets
        [record] = task.predict(batch_of([[]]))
        assert [each["label"] for each in record["objects"]] == labels
    task = make_task(nms_iou=0.7, max_detections=1).eval()
    task.net.said = logits, offsets
    assert len(task.predict(batch_of([[]]))[0]["objects"]) == 1


COLOURS = [tuple(bytes.fromhex(colour[1:])) for colour in draw.distinct_colours(3)]


def test_a_picture_without_truth_shows_its_boxes_at_its_size() -> None:
    picture = Image.new("RGB", (640, 480), "white")
    objects = [{"label": "dog", "box": [100.0, 200, 300, 400], "score": 0.75}]
    drawn = make_task().draw(picture, {"objects": objects})
    assert drawn.size == (640, 480)
    for place in ((100, 300), (299, 300), (200, 399)):
        assert drawn.getpixel(place) == COLOURS[1]
    assert drawn.getpixel((200, 300)) == drawn.getpixel((98, 300)) == (255, 255, 255)
    assert picture.getcolors() == [(640 * 480, (255, 255, 255))], "the given picture is left as it is"
    nothing = make_task().draw(picture, {"objects": []})
    assert nothing.getcolors() == [(640 * 480, (255, 255, 255))]


@pytest.mark.parametrize(("size", "panel", "scale"), [((960, 720), 480, 0.5), ((60, 45), 240, 4), ((480, 360), 480, 1)])
def test_with_truth_there_are_two_panels(size: tuple[int, int], panel: int, scale: float) -> None:
    width, height = size
    left, right = ([x * width, height / 4, (x + 0.25) * width, height * 3 / 4] for x in (0.25, 0.5))
    record = {"truth": [{"label": "eel", "box": left}], "objects": [{"label": "cat", "box": right, "score": 0.9}]}
    drawn = make_task().draw(Image.new("RGB", size, "white"), record)
    assert drawn.width == 2 * panel + draw.GAP
    middle = drawn.height - round(height * scale / 2)
    edges = [
        {drawn.getpixel((start + round(share * panel), middle)) for share in (0.25, 0.5)}
        for start in (0, panel + draw.GAP)
    ]
    assert edges == [{COLOURS[2], (255, 255, 255)}, {COLOURS[0], (255, 255, 255)}]
    assert drawn.getpixel((panel // 4, middle)) == COLOURS[2]
    assert drawn.getpixel((panel + draw.GAP + panel // 2, middle)) == COLOURS[0]


def test_the_test_draws_the_curves_of_the_classes_that_occur() -> None:
    curves = torch.full((3, 101), math.nan)
    curves[0] = torch.linspace(1, 0, 101)
    curves[2] = 0.75
    drawn = make_task().draw_results({"precision_at_recall": curves})
    assert set(drawn) == {"precision_recall"}
    lines = drawn["precision_recall"].axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["eel 0.750", "cat 0.500"]
    assert lines[0].get_xdata() == pytest.approx([step / 100 for step in range(101)])
    assert lines[1].get_ydata() == pytest.approx(curves[0].tolist())
    assert make_task().draw_results({}) == {}


def test_of_many_classes_the_ten_best_are_drawn() -> None:
    task = make_task()
    task.facts = DetectionFacts(3, tuple(f"class{index}" for index in range(15)))
    curves = torch.linspace(0, 0.7, 15)[:, None].expand(15, 101)
    lines = task.draw_results({"precision_at_recall": curves})["precision_recall"].axes[0].get_lines()
    assert [line.get_label().split()[0] for line in lines] == [f"class{index}" for index in range(14, 4, -1)]


class Classifier(nn.Module):
    """Classifies whole images."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_channels, num_classes)

    def forward(self, images: Tensor) -> Any:
        return self.layer(images.mean(dim=(2, 3)))


class Unanchored(Classifier):
    def forward(self, images: Tensor) -> Any:
        return AnchorOutputs(torch.zeros(1, 8, 4), torch.zeros(1, 8, 4), ((2, 4),))


class Pair(Given):
    """Forgets the sizes of its maps."""

    def forward(self, images: Tensor) -> Any:
        return tuple(super().forward(images)[:2])


class Backgroundless(Given):
    def forward(self, images: Tensor) -> Any:
        logits, offsets, map_sizes = super().forward(images)
        return AnchorOutputs(logits[..., 1:], offsets, map_sizes)


class Coarse(Given):
    """Speaks of fewer anchors than its maps have."""

    def forward(self, images: Tensor) -> Any:
        logits, offsets, map_sizes = super().forward(images)
        return AnchorOutputs(logits[:, 1:], offsets[:, 1:], map_sizes)


class Strange(Given):
    def forward(self, images: Tensor) -> AnchorOutputs:
        raise RuntimeError("expected sentences")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Classifier, "Classifier gives a Tensor, expected AnchorOutputs, and an AnchorGrid as `anchors`"),
        (Unanchored, "Unanchored gives a AnchorOutputs, expected AnchorOutputs, and an AnchorGrid as `anchors`"),
        (Pair, "Pair gives a tuple, expected AnchorOutputs, and an AnchorGrid as `anchors`"),
        (
            Backgroundless,
            "Backgroundless gives logits and offsets [(1, 8, 3), (1, 8, 4)] for a 256x384 image with 8 anchors, "
            "expected [(1, 8, 4), (1, 8, 4)]: of each anchor the background and 3 classes, and four offsets.",
        ),
        (Coarse, "Coarse gives logits and offsets [(1, 7, 4), (1, 7, 4)] for a 256x384 image with 8 anchors"),
        (Strange, "Strange cannot take a 256x384 image: expected sentences"),
    ],
)
def test_networks_that_do_not_serve(net: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(net)
    assert str(caught.value).startswith(message)


SHARES = ("match_iou", "nms_iou", "score_threshold", "shown_score")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({name: value}, f"{name} is {value}; it must be from 0 to 1") for name in SHARES for value in (-0.1, 1.5)],
        ({"nms_iou": math.nan}, "nms_iou is nan; it must be from 0 to 1"),
        ({"negative_ratio": 0.0}, "negative_ratio is 0.0; it must be above 0 (or null: all anchors count)"),
        ({"negative_ratio": math.inf}, "negative_ratio is inf; it must be above 0 (or null: all anchors count)"),
        ({"negative_ratio": math.nan}, "negative_ratio is nan; it must be above 0 (or null: all anchors count)"),
        ({"box_weight": -1.0}, "box_weight is -1.0; it must be 0 (boxes are not learnt) or more"),
        ({"box_weight": math.inf}, "box_weight is inf; it must be 0 (boxes are not learnt) or more"),
        ({"max_detections": 0}, "max_detections is 0; it must be at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(**options)
    assert str(caught.value).startswith(message)


def test_bfloat16_autocast_computes_losses_and_boxes_in_float32() -> None:
    task, batch = make_task(TinySSD), batch_of(THINGS, images=torch.randn(3, 3, 64, 80))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = task.outputs(batch)
        loss = task.loss(outputs, batch)
    assert outputs.logits.dtype == outputs.offsets.dtype == loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in task.network.parameters())
    task.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        _, things, *_ = task.measure(task.outputs(batch), batch)
        task.predict(batch)
    assert things.dtype == torch.float32


def test_the_same_task_evaluates_in_inference_mode_and_then_trains() -> None:
    task, batch = make_task(TinySSD), batch_of(THINGS, images=torch.randn(3, 3, 64, 80))
    with torch.inference_mode():
        task.eval().measure(task.outputs(batch), batch)
    task.train().loss(task.outputs(batch), batch).backward()


FIT = [
    *("fit", "--model", "Detector", "--model.net", "TinySSD", "--model.net.base_channels", "[8,16,32]"),
    *("--model.net.channels", "32", "--model.net.background", "0.99"),
    *("--model.net.sizes", "[[.2,.3],[.35,.45],[.5,.6],[.7,.8],[.9,.96]]"),
    *("--model.optimizer", "Adam", "--model.optimizer.lr", "0.01", "--experiment", "shapes"),
]
ON_CPU = ["--trainer.accelerator", "cpu"]
MEANS = {"loss", "class_error", "box_mae", "map", "map_50", "map_75"}


@pytest.fixture(scope="module")
def bananas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures in data/, and a run that has learnt them, runs/shapes/1, with its test."""
    folder = tmp_path_factory.mktemp("detection")
    data = [f"--data.{name}={value}" for name, value in BananaDetection.fabricate(folder / "data").items()]
    with contextlib.chdir(folder):
        assert main([*FIT, "--data", "BananaDetection", *data, "--trainer.max_epochs", "16", *ON_CPU]) == 0
        assert main(["test", "runs/shapes/1", "--data.batch_size", "2", *ON_CPU]) == 0
    return folder


def iou(one: list[float], other: list[float]) -> float:
    across, down = (max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1))
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return across * down / (areas - across * down)


def test_training_is_written_down(bananas: Path) -> None:
    run = bananas / "runs/shapes/1"
    with (run / "metrics.csv").open() as file:
        names = set(next(csv.reader(file)))
    assert {f"val/{name}" for name in MEANS} <= names
    assert {"train/loss", "train/class_error", "train/box_mae"} <= names
    assert not [name for name in names if "ap_" in name.replace("map_", "")], "classes are for the test"
    assert len(list((run / "samples").iterdir())) == 16
    with Image.open(run / "samples/epoch_016.png") as sheet:
        assert sheet.width == 2 * (2 * 128 + draw.GAP) + 3 * draw.GAP, "two columns of truth and prediction"
    drawn = {path.name for path in (run / "test").iterdir()}
    assert {"precision_recall.png", "samples.png", "metrics.json"} <= drawn


def test_it_learns(bananas: Path) -> None:
    tested = json.loads((bananas / "runs/shapes/1/test/metrics.json").read_text())
    assert {f"test/{name}" for name in (*MEANS, "ap_banana", "ap50_banana")} <= set(tested)
    assert tested["test/map_50"] > 0.9
    assert tested["test/ap50_banana"] == pytest.approx(tested["test/map_50"])
    assert tested["test/ap_banana"] == pytest.approx(tested["test/map"])
    assert tested["test/class_error"] < 0.01


def test_predictions_lie_on_the_things_in_pictures_of_any_size(bananas: Path) -> None:
    """Each test picture twice as large, with a black strip on the right, given in another order."""
    with (bananas / "data/bananas_val/label.csv").open() as file:
        rows = list(csv.DictReader(file))[::-1]
    (bananas / "large").mkdir()
    for row in rows:
        with Image.open(bananas / "data/bananas_val/images" / row["img_name"]) as picture:
            wide = Image.new("RGB", (134, 128), "black")
            wide.paste(picture.resize((128, 128)), (0, 0))
            wide.save(bananas / "large" / row["img_name"])
    files = [f"large/{row['img_name']}" for row in rows]
    with contextlib.chdir(bananas):
        options = ["--data.batch_size", "2", "--model.shown_score", "0.3", "--out", "found"]
        assert main(["predict", "runs/shapes/1", *files, *options, *ON_CPU]) == 0
    records = [json.loads(line) for line in (bananas / "found/predictions.jsonl").read_text().splitlines()]
    found = 0
    for row, record in zip(rows, records, strict=True):
        assert set(record) == {"index", "input", "objects", "picture"}
        assert (bananas / "found" / record["picture"]).is_file()
        for each in record["objects"]:
            left, top, right, bottom = each["box"]
            assert 0 <= left < right <= 134
            assert 0 <= top < bottom <= 128
            assert each["score"] >= 0.3
        scores = [each["score"] for each in record["objects"]]
        assert scores == sorted(scores, reverse=True)
        truth = [2 * float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")]
        found += any(each["label"] == "banana" and iou(each["box"], truth) > 0.5 for each in record["objects"])
    assert found >= 4, "of 5"


def test_thresholds_can_be_changed_later(bananas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(bananas):
        options = ["--model.max_detections", "1", "--model.shown_score", "0"]
        files = ["data/bananas_val/images/0.png"]
        assert main(["predict", "runs/shapes/1", *files, *options, "--out", "one", *ON_CPU]) == 0
        assert main(["predict", "runs/shapes/1", *files, "--model.shown_score", "2", *ON_CPU]) == 2
    [record] = [json.loads(line) for line in (bananas / "one/predictions.jsonl").read_text().splitlines()]
    assert len(record["objects"]) == 1
    assert "shown_score is 2.0; it must be from 0 to 1." in capsys.readouterr().err


def test_classes_pictures_without_things_and_difficult_ones(tmp_path: Path) -> None:
    data = [f"--data.{name}={value}" for name, value in VOCDetection.fabricate(tmp_path / "data").items()]
    options = ["--model.class_loss", "focal", "--model.box_loss", "l1", "--trainer.max_epochs", "1", *ON_CPU]
    with contextlib.chdir(tmp_path):
        assert main([*FIT, "--data", "VOCDetection", *data, *options]) == 0
        assert main(["test", "runs/shapes/1", *ON_CPU]) == 0
    tested = json.loads((tmp_path / "runs/shapes/1/test/metrics.json").read_text())
    annotations = [
        (tmp_path / "data/Annotations" / f"{name}.xml").read_text()
        for name in (tmp_path / "data/ImageSets/Main/test.txt").read_text().split()
    ]
    shown = {name for name in ("disc", "bar") if any(f"<name>{name}<" in text for text in annotations)}
    assert {name for name in tested if "/ap" in name} == {
        f"test/{kind}_{name}" for kind in ("ap", "ap50") for name in shown
    }
    assert {f"test/{name}" for name in MEANS} <= set(tested)
    assert tested["test/map"] == pytest.approx(sum(tested[f"test/ap_{name}"] for name in shown) / len(shown))


def test_a_network_that_classifies_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [f"--data.{name}={value}" for name, value in BananaDetection.fabricate(tmp_path / "data").items()]
    fit = ["fit", "--model", "Detector", "--model.net", "ResNet", "--data", "BananaDetection", *data, *ON_CPU]
    with contextlib.chdir(tmp_path):
        assert main(fit) == 2
    assert "ResNet gives a Tensor, expected AnchorOutputs" in capsys.readouterr().err
