"""Segmenter: what it computes of given logits, against formulas and plain Python; pictures by their pixels."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, log_loss
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from leyden.batches import VOID, SegmentationFacts, SegmentedImages
from leyden.errors import UsageError
from leyden.main import main
from leyden_datamodules.voc_segmentation import VOCSegmentation
from leyden_plugins.segmentation.losses import dice_loss
from leyden_plugins.segmentation.task import Segmenter

NAMES = ("background", "cat", "dog", "eel")
PALETTE = ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200))


class Given(nn.Module):
    """Gives the pixels of an image as its logits, so that a test chooses them; remembers what sizes it was given."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        return images * self.scale


class Looking(nn.Module):
    """Sees two pixels far."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Conv2d(in_channels, num_classes, 5, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def make_task(net: Any = Given, **kwargs: Any) -> Segmenter:
    torch.manual_seed(0)
    task = Segmenter(net=net, **kwargs)
    task.facts = SegmentationFacts(len(NAMES), NAMES, PALETTE)
    task.configure_model()
    if isinstance(task.net, Given):
        task.net.sizes.clear()
    return task


def scenes(*sizes: tuple[int, int], seed: int = 0, void: float = 0.1) -> list[tuple[Tensor, Tensor]]:
    """Images (4, H, W), which are logits, and masks (H, W)."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for height, width in sizes:
        mask = torch.randint(0, 4, (height, width), generator=generator).to(torch.uint8)
        mask[torch.rand(mask.shape, generator=generator) < void] = VOID
        made.append((2 * torch.randn(4, height, width, generator=generator), mask))
    return made


def batch_of(items: list[tuple[Tensor, Tensor]]) -> SegmentedImages:
    """Padded on the right and below."""
    sizes = torch.tensor([mask.shape for _, mask in items])
    height, width = sizes.amax(dim=0).tolist()
    images = torch.zeros(len(items), 4, height, width)
    masks = torch.full((len(items), height, width), VOID, dtype=torch.uint8)
    for place, (image, mask) in enumerate(items):
        images[place, :, : mask.shape[0], : mask.shape[1]] = image
        masks[place, : mask.shape[0], : mask.shape[1]] = mask
    return SegmentedImages(images, masks, sizes)


MIXED = [(6, 9), (8, 5), (6, 9), (3, 4), (8, 5)]


def labelled(items: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (P, K) in float64 and classes (P,) of all labelled pixels."""
    logits = torch.cat([image.flatten(1).T[mask.flatten() != VOID] for image, mask in items])
    classes = torch.cat([mask[mask != VOID] for _, mask in items])
    return logits.double().softmax(1).numpy(), classes.numpy()


def epoch_loss(task: Segmenter, items: list[tuple[Tensor, Tensor]], batch_size: int) -> float:
    """As the engine computes it: the mean of the batches' losses, by weight."""
    total = weights = 0.0
    for start in range(0, len(items), batch_size):
        batch = batch_of(items[start : start + batch_size])
        weight = task.weight(batch)
        total += weight * task.loss(task.outputs(batch), batch).item()
        weights += weight
    return total / weights


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_loss_is_the_mean_cross_entropy_of_the_labelled_pixels(batch_size: int) -> None:
    items = scenes(*MIXED)
    probabilities, classes = labelled(items)
    expected = log_loss(classes, probabilities, labels=range(4))
    assert epoch_loss(make_task(), items, batch_size) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_loss_with_class_weights(batch_size: int) -> None:
    """Each pixel's is multiplied by the weight of its class; what is divided by stays the number of pixels."""
    weights, items = [0.5, 2.0, 0.0, 3.0], scenes(*MIXED)
    probabilities, classes = labelled(items)
    nats = -np.log(probabilities[np.arange(len(classes)), classes])
    expected = (nats * np.array(weights)[classes]).mean()
    assert epoch_loss(make_task(class_weights=weights), items, batch_size) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_dice_is_added_for_each_image_by_its_labelled_pixels(batch_size: int) -> None:
    items = scenes(*MIXED)
    pixels = [int((mask != VOID).sum()) for _, mask in items]
    each = [dice_loss(image[None], mask[None]).item() for image, mask in items]
    expected = epoch_loss(make_task(), items, 5) + 0.7 * np.average(each, weights=pixels)
    assert epoch_loss(make_task(dice=0.7), items, batch_size) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"dice": 1.0}, {"class_weights": [1.0, 1.0, 0.0, 0.0]}])
def test_without_a_labelled_pixel_the_loss_is_0_and_can_be_trained_on(options: dict[str, Any]) -> None:
    task = make_task(**options)
    batch = batch_of(scenes((4, 5), (6, 3), void=1.0))
    loss = task.loss(task.outputs(batch), batch)
    loss.backward()
    assert loss.item() == 0
    assert task.weight(batch) == 0
    assert [parameter.grad.item() for parameter in task.parameters() if parameter.grad is not None] == [0.0]


@pytest.mark.parametrize("stage", ["train", "val", "test"])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_metrics_count_the_pixels_inside_each_image(stage: Any, batch_size: int) -> None:
    """Beyond an image masks are void: they must not count as the book's background."""
    task, items = make_task(), scenes(*MIXED)
    metrics = task.build_metrics(stage)
    for start in range(0, len(items), batch_size):
        batch = batch_of(items[start : start + batch_size])
        (counts,) = task.measure(task.outputs(batch), batch)
        assert counts.shape == (1, 5, 4), "items first, so that batches can be put behind each other"
        task.update_metrics(metrics, counts)
    found = metrics.compute()
    probabilities, classes = labelled(items)
    confusion = confusion_matrix(classes, probabilities.argmax(1), labels=range(4))
    right, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert found["mean_iou"].item() == pytest.approx((right / union).mean())
    assert found["pixel_accuracy"].item() == pytest.approx(right.sum() / confusion.sum())
    void = [image.argmax(0)[mask == VOID] for image, mask in items]
    as_book = right.sum() + sum(int((guess == 0).sum()) for guess in void)
    assert found["pixel_accuracy_book"].item() == pytest.approx(as_book / sum(mask.numel() for _, mask in items))
    if stage == "test":
        assert found["confusion_matrix"][:4].tolist() == confusion.tolist()
        assert [found[f"iou_{name}"].item() for name in NAMES] == pytest.approx((right / union).tolist())


def test_what_waits_is_counted_as_if_it_had_come_at_once() -> None:
    task, items = make_task(), scenes(*MIXED)
    measured = [task.measure(task.outputs(batch), batch)[0] for batch in map(batch_of, (items[:2], items[2:]))]
    whole = batch_of(items)
    assert torch.equal(torch.cat(measured).sum(0), task.measure(task.outputs(whole), whole)[0][0])


def test_images_of_one_size_go_through_the_network_together_and_without_padding() -> None:
    task = make_task()
    task.outputs(batch_of(scenes(*MIXED)))
    assert task.net.sizes == [(2, 4, 6, 9), (2, 4, 8, 5), (1, 4, 3, 4)]
    task.net.sizes.clear()
    task.outputs(batch_of(scenes((6, 9), (6, 9), (6, 9))))
    assert task.net.sizes == [(3, 4, 6, 9)]


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"window": 5, "flip_averaging": True}])
def test_a_prediction_does_not_depend_on_its_neighbours(options: dict[str, Any]) -> None:
    task, items = make_task(Looking, **options).eval(), scenes(*MIXED)
    with torch.no_grad():
        together = task.predict(batch_of(items))
        alone = [task.predict(batch_of([item]))[0] for item in items]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one["mask"], other["mask"])
        assert one["areas"] == other["areas"]


def test_predictions_are_masks_and_the_shares_of_their_classes() -> None:
    image = torch.zeros(4, 2, 5)
    image[2] = 1.0  # a dog
    image[1, 0, :3] = 2.0  # with three pixels of cat
    image[0, 1, 4] = 3.0
    mask = torch.full((2, 5), VOID, dtype=torch.uint8)
    known = mask.clone()
    known[0, 0] = 3
    unknown, with_truth = make_task().eval().predict(batch_of([(image, mask), (image, known)]))
    assert unknown["mask"].tolist() == [[1, 1, 1, 2, 2], [2, 2, 2, 2, 0]]
    assert unknown["mask"].dtype == torch.uint8
    assert unknown["areas"] == {"dog": 0.6, "cat": 0.3, "background": 0.1}
    assert list(unknown["areas"]) == ["dog", "cat", "background"], "the largest first"
    assert unknown["label"] == "dog"
    assert "truth" not in unknown
    assert torch.equal(with_truth["truth"], known)


def test_records_come_in_the_order_of_the_batch() -> None:
    items = scenes(*MIXED)
    records = make_task().eval().predict(batch_of(items))
    assert [tuple(record["mask"].shape) for record in records] == MIXED
    for record, (image, mask) in zip(records, items, strict=True):
        assert torch.equal(record["mask"], image.argmax(0).to(torch.uint8))
        assert torch.equal(record["truth"], mask)


def test_windows_of_a_network_that_sees_single_pixels_change_nothing() -> None:
    items = scenes((40, 30), (12, 50), (9, 9))
    batch = batch_of(items)
    whole, pieces = make_task().eval(), make_task(window=10).eval()
    for one, other in zip(whole.outputs(batch), pieces.outputs(batch), strict=True):
        torch.testing.assert_close(one.logits, other.logits)
    assert {size[2:] for size in pieces.net.sizes} == {(10, 10), (9, 9)}
    torch.testing.assert_close(
        whole.loss(whole.outputs(batch), batch), pieces.loss(pieces.outputs(batch), batch), rtol=1e-5, atol=1e-6
    )


def test_training_knows_no_windows_and_no_mirror_images() -> None:
    task = make_task(window=4, flip_averaging=True)
    task.train().outputs(batch_of(scenes((8, 12), (8, 12))))
    assert task.net.sizes == [(2, 4, 8, 12)]


def test_large_images_are_taken_one_by_one() -> None:
    task = make_task(window=8, overlap=0.0).eval()
    task.outputs(batch_of(scenes((8, 16), (8, 16))))
    assert task.net.sizes == [(1, 4, 8, 8)] * 4


@pytest.mark.parametrize("window", [None, 7])
def test_flip_averaging_is_the_mean_of_both_probabilities(window: int | None) -> None:
    task, plain = (make_task(Looking, window=window, flip_averaging=flip).eval() for flip in (True, False))
    batch = batch_of(scenes((10, 13)))
    mirrored = SegmentedImages(batch.images.flip(3), batch.masks.flip(2), batch.sizes)
    with torch.no_grad():
        [found], [one], [other] = task.outputs(batch), plain.outputs(batch), plain.outputs(mirrored)
        expected = (one.logits.softmax(1) + other.logits.flip(3).softmax(1)) / 2
        torch.testing.assert_close(found.logits.softmax(1), expected)
        again = task.outputs(mirrored)[0].logits.softmax(1).flip(3)
        torch.testing.assert_close(found.logits.softmax(1), again)
    assert not torch.allclose(expected, one.logits.softmax(1))


def test_a_picture_without_truth_is_coloured_above_its_legend() -> None:
    mask = torch.zeros(200, 300, dtype=torch.uint8)
    mask[:, 150:] = 2
    picture = Image.new("RGB", (300, 200), "white")
    drawn = make_task().draw(picture, {"mask": mask})
    assert drawn.width == 300
    left, right = drawn.getpixel((10, 10)), drawn.getpixel((290, 10))
    assert left[0] == left[1] == left[2] < 255
    assert right[1] > right[0] == right[2]
    legend = {pixel for _, pixel in drawn.crop((0, 200, 300, drawn.height)).getcolors(10**5)}
    assert {PALETTE[0], PALETTE[2]} <= legend
    assert not {PALETTE[1], PALETTE[3]} & legend, "classes that are not there are not named"


@pytest.mark.parametrize(("size", "panel"), [((480, 360), 480), ((2000, 1500), 480), ((60, 45), 240)])
def test_with_truth_there_are_three_panels(size: tuple[int, int], panel: int) -> None:
    mask, truth = (torch.full((size[1], size[0]), index, dtype=torch.uint8) for index in (1, 3))
    drawn = make_task().draw(Image.new("RGB", size, "white"), {"mask": mask, "truth": truth})
    assert drawn.width == 3 * panel + 2 * 4
    picture, true, predicted = (drawn.getpixel((panel // 2 + place * (panel + 4), 100)) for place in range(3))
    assert picture == (255, 255, 255)
    assert true[2] > true[0] == true[1]
    assert predicted[0] > predicted[1] == predicted[2]


def test_the_mask_is_kept_in_the_pictures_size() -> None:
    mask = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    task = make_task()
    same, larger = (
        task.draw_files(Image.new("RGB", size), {"mask": mask, "truth": mask})["mask"] for size in ((2, 2), (6, 4))
    )
    assert torch.equal(pil_to_tensor(same)[0], mask)
    assert (larger.mode, larger.size) == ("P", (6, 4))
    assert pil_to_tensor(larger)[0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert larger.convert("RGB").getpixel((5, 0)) == PALETTE[1]


def test_the_test_draws_its_confusion_matrix_and_the_classes_that_occur() -> None:
    counts = torch.tensor([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2], [9, 9, 9, 9]])
    drawn = make_task().draw_results({"confusion_matrix": counts})
    assert set(drawn) == {"confusion_matrix", "iou"}
    assert drawn["confusion_matrix"].axes[0].get_title() == f"test mean IoU {(3 / 4 + 4 / 5 + 1) / 3:.4f}"
    bars = drawn["iou"].axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["background", "cat", "eel"]
    assert make_task().draw_results({}) == {}


class Flat(Given):
    """Classifies whole images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


class Coarse(Given):
    """Does not crop what it has padded."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.pad(images, (0, -images.shape[3] % 8, 0, -images.shape[2] % 8))


class Nested(Given):
    """As torchvision's own networks do."""

    def forward(self, images: Tensor) -> Any:
        return {"out": images}


class Strange(Given):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("expected sentences")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Flat, "Flat gives (1, 4) for a 45x71 image, expected logits (1, 4, 45, 71)"),
        (Coarse, "Coarse gives (1, 4, 48, 72) for a 45x71 image, expected logits (1, 4, 45, 71)"),
        (Nested, "Nested gives a dict for a 45x71 image, expected logits (1, 4, 45, 71)"),
        (Strange, "Strange cannot take a 45x71 image: expected sentences"),
    ],
)
def test_networks_that_do_not_serve(net: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(net)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers, expected 4, one for each class: background, cat"),
        ({"class_weights": [1.0, -2.0, 1.0, 1.0]}, "class_weights has -2.0; each must be 0"),
        ({"class_weights": [1.0, math.nan, 1.0, 1.0]}, "class_weights has nan; each must be 0"),
        ({"class_weights": [0.0] * 4}, "class_weights has no number above 0"),
        ({"dice": -0.5}, "dice is -0.5; it must be 0 (off) or more"),
        ({"dice": math.inf}, "dice is inf; it must be 0 (off) or more"),
        ({"window": 0}, "window is 0; it must be at least 1 pixel"),
        ({"overlap": 1.0}, "overlap is 1.0; it must be at least 0 and below 1"),
        ({"overlap": -0.1}, "overlap is -0.1; it must be at least 0 and below 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(**options)
    assert str(caught.value).startswith(message)


def test_checkpoints_hold_class_weights_as_an_option_only() -> None:
    task = make_task(class_weights=[1.0, 2.0, 0.0, 1.0])
    assert task.hparams["class_weights"] == [1.0, 2.0, 0.0, 1.0]
    assert not [name for name in task.state_dict() if "weights" in name]


FIT = [
    *("fit", "--model", "Segmenter", "--model.net", "UNet", "--model.net.channels", "[8,16,32]"),
    *("--model.optimizer", "Adam", "--model.optimizer.lr", "0.01", "--trainer.max_epochs", "8"),
    *("--data", "VOCSegmentation", "--experiment", "shapes"),
]
ON_CPU = ["--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures in data/, and a run that has learnt them, runs/shapes/1, with its test."""
    folder = tmp_path_factory.mktemp("segmentation")
    data = [f"--data.{name}={value}" for name, value in VOCSegmentation.fabricate(folder / "data").items()]
    with contextlib.chdir(folder):
        assert main([*FIT, *data, *ON_CPU]) == 0
        assert main(["test", "runs/shapes/1", "--data.batch_size", "2", *ON_CPU]) == 0
    return folder


def true_mask(folder: Path, name: str) -> Tensor:
    with Image.open(folder / "data" / "SegmentationClass" / f"{name}.png") as mask:
        return pil_to_tensor(mask)[0]


def test_it_learns_and_the_test_says_what_the_written_masks_say(place: Path) -> None:
    """The confusion matrix of the masks in files, of pictures given to `predict` in another order and one by one."""
    names = (place / "data/ImageSets/Segmentation/test.txt").read_text().split()[::-1]
    files = [f"data/JPEGImages/{name}.jpg" for name in names]
    with contextlib.chdir(place):
        assert main(["predict", "runs/shapes/1", *files, "--data.batch_size", "1", "--out", "one", *ON_CPU]) == 0
    records = [json.loads(line) for line in (place / "one/predictions.jsonl").read_text().splitlines()]
    true, found = [], []
    for name, record in zip(names, records, strict=True):
        with Image.open(place / "one" / record["mask"]) as mask:
            assert mask.mode == "P"
            predicted = pil_to_tensor(mask)[0]
        expected = true_mask(place, name)
        assert predicted.shape == expected.shape
        true.append(expected[expected != VOID])
        found.append(predicted[expected != VOID])
        shares = predicted.flatten().bincount(minlength=3) / predicted.numel()
        areas = [record["areas"].get(name, 0) for name in ("ground", "disc", "box")]
        assert areas == pytest.approx(shares.tolist())
        assert (place / "one" / record["picture"]).is_file()
        assert set(record) == {"index", "input", "label", "areas", "picture", "mask"}, "no tensors"
    confusion = confusion_matrix(torch.cat(true), torch.cat(found))
    ious = confusion.diagonal() / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())
    tested = json.loads((place / "runs/shapes/1/test/metrics.json").read_text())
    assert tested["test/mean_iou"] == pytest.approx(ious.mean())
    assert [tested[f"test/iou_{name}"] for name in ("ground", "disc", "box")] == pytest.approx(ious.tolist())
    assert tested["test/pixel_accuracy"] == pytest.approx(confusion.trace() / confusion.sum())
    assert tested["test/mean_iou"] > 0.9


def test_samples_are_strips_below_each_other(place: Path) -> None:
    with Image.open(place / "runs/shapes/1/samples/epoch_008.png") as sheet:
        assert 500 < sheet.width <= 3 * 480 + 4 * 4
        assert sheet.height > 6 * 100
    drawn = {path.name for path in (place / "runs/shapes/1/test").iterdir()}
    assert {"confusion_matrix.png", "iou.png", "samples.png"} <= drawn


def test_windows_and_mirror_images_can_be_asked_for_later(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.window", "24", "--model.flip_averaging", "true"]
    with contextlib.chdir(place):
        assert main(["test", "runs/shapes/1", *options, "--out", "windows", *ON_CPU]) == 0
        assert main(["test", "runs/shapes/1", "--model.class_weights", "[1, 2]", *ON_CPU]) == 2
    assert json.loads((place / "windows/metrics.json").read_text())["test/mean_iou"] > 0.8
    assert "class_weights has 2 numbers, expected 3, one for each class: ground, disc, box." in capsys.readouterr().err


def test_a_split_without_a_labelled_pixel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = VOCSegmentation.fabricate(tmp_path / "data")
    for name in (tmp_path / "data/ImageSets/Segmentation/val.txt").read_text().split():
        path = tmp_path / "data/SegmentationClass" / f"{name}.png"
        with Image.open(path) as mask:
            void = mask.point(lambda _: VOID)
        void.save(path)
    data = [f"--data.{name}={value}" for name, value in arguments.items()]
    with contextlib.chdir(tmp_path):
        assert main([*FIT, *data, *ON_CPU]) == 1
    assert "masks of the val split are void: nothing to compare with." in capsys.readouterr().err
