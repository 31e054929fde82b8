"""Speed of detection: matching, suppression, and what both cost beside the network.

python benchmarks/detection.py [parts|fit] [--repeats N] [--threads N] [--root FOLDER] [--epochs N] [--batches N]

parts: TinySSD at 256 x 256 (5,444 anchors), batch 32, up to 10 boxes an image, all made up. The loop over images
matches one image after another, box by box. The greedy loop decodes and suppresses one image in plain Python. The bare
step is the network's forward and backward pass from the mean of its outputs.
fit: `fit` on BananaDetection against such bare steps on batches that were made before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from _side_by_side import Loop, fit_beside
from torch import Tensor
from torchvision.ops import box_iou

from leyden.batches import BoxedImages, DetectionFacts
from leyden.cli import TrainingCLI
from leyden.data import data_folders
from leyden.memory import keep_freed_memory
from leyden_plugins.detection.decoding import find_things
from leyden_plugins.detection.matching import assign
from leyden_plugins.detection.networks.tiny_ssd import TinySSD
from leyden_plugins.detection.offsets import decode, encode
from leyden_plugins.detection.task import Detector

BATCH_SIZE, SIDE, MOST_BOXES = 32, 256, 10
SCORE_THRESHOLD, NMS_IOU, MAX_DETECTIONS = 0.01, 0.5, 100
IMAGES_OF_GREEDY_LOOP = 2


def random_batch(generator: torch.Generator) -> BoxedImages:
    """Noise with 1 to 10 boxes of one class in each image, about as large as bananas."""
    corners = torch.rand(BATCH_SIZE, MOST_BOXES, 2, generator=generator) * (SIDE - 80)
    extents = 30 + 50 * torch.rand(BATCH_SIZE, MOST_BOXES, 2, generator=generator)
    counts = torch.randint(1, MOST_BOXES + 1, (BATCH_SIZE, 1), generator=generator)
    labels = torch.where(torch.arange(MOST_BOXES) < counts, 0, -1)
    sizes = torch.full((BATCH_SIZE, 2), SIDE)
    images = torch.randn(BATCH_SIZE, 3, SIDE, SIDE, generator=generator).to(memory_format=torch.channels_last)
    boxes = torch.cat((corners, corners + extents), dim=-1) * (labels >= 0)[..., None]
    return BoxedImages(images, boxes, labels, torch.zeros_like(labels, dtype=torch.bool), sizes, sizes)


def match_one_image(anchors: Tensor, boxes: Tensor, labels: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """As the book does: a loop over the boxes of one image, which gives classes (A,) and offsets (A, 4)."""
    boxes = boxes[labels >= 0]
    ious = box_iou(anchors, boxes)
    values, indices = ious.max(dim=1)
    matched = torch.where(values >= threshold, indices, -1)
    for _ in range(len(boxes)):
        place = int(ious.argmax())
        anchor, box = place // len(boxes), place % len(boxes)
        matched[anchor] = box
        ious[:, box] = -1
        ious[anchor] = -1
    classes, offsets = torch.zeros_like(matched), torch.zeros_like(anchors)
    positive = matched >= 0
    classes[positive] = 1 + labels[matched[positive]]
    offsets[positive] = encode(anchors[positive], boxes[matched[positive]])
    return classes, offsets


def greedy_loop(logits: Tensor, offsets: Tensor, anchors: Tensor) -> list[int]:
    """The kept anchors of one image and class, by lists of Python."""
    boxes = decode(anchors, offsets).clamp(0, SIDE).tolist()
    scores = logits.softmax(dim=-1)[:, 1].tolist()
    waiting = sorted((i for i in range(len(scores)) if scores[i] > SCORE_THRESHOLD), key=lambda i: -scores[i])
    kept = []
    while waiting:
        best = waiting[0]
        kept.append(best)
        waiting = [other for other in waiting[1:] if iou(boxes[best], boxes[other]) <= NMS_IOU]
    return kept


def iou(first: list[float], second: list[float]) -> float:
    """Intersection over union of two boxes xyxy."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (areas - width * height)


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes once."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Medians of both, and the median of first over second, pair by pair, after one of each to warm up."""
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(repeats)]
    return (
        *(statistics.median(times) for times in zip(*pairs, strict=True)),
        statistics.median(a / b for a, b in pairs),
    )


def measure_parts(repeats: int) -> None:
    """Print the four ratios."""
    batch = random_batch(torch.Generator().manual_seed(0))
    task = Detector(TinySSD, channels_last=True)
    task.facts = DetectionFacts(3, ("thing",))
    task.configure_model()
    outputs = task(batch.images)
    anchors = task.anchors_of(outputs, batch.images)

    def loop_over_images() -> None:
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True):
            match_one_image(anchors, boxes, labels)

    loop, whole, ratio = alternate(loop_over_images, lambda: assign(anchors, batch.boxes, batch.labels), repeats)
    print(f"matching: {1e3 * whole:.1f} ms a batch, a loop over its images {1e3 * loop:.1f} ms, {ratio:.1f} times")

    targets = assign(anchors, batch.boxes, batch.labels)
    noise = torch.randn(targets.offsets.shape, generator=torch.Generator().manual_seed(1))
    offsets = targets.offsets + noise  # about what a trained network says
    logits = torch.stack((5 * (targets.classes == 0) + noise[..., 0], 4 * targets.classes + noise[..., 1]), dim=-1)

    def suppress(count: int) -> Any:
        limits = (SCORE_THRESHOLD, NMS_IOU, MAX_DETECTIONS)
        return find_things(logits[:count], offsets[:count], anchors, batch.sizes[:count], *limits)

    def greedy() -> None:
        for image in range(IMAGES_OF_GREEDY_LOOP):
            greedy_loop(logits[image], offsets[image], anchors)

    loop, whole, ratio = alternate(greedy, lambda: suppress(IMAGES_OF_GREEDY_LOOP), repeats)
    print(f"suppression: {1e3 * whole:.1f} ms for 2 images, a greedy loop {1e3 * loop:.1f} ms, {ratio:.1f} times")

    task.eval()
    with torch.no_grad():
        whole, network, ratio = alternate(lambda: suppress(BATCH_SIZE), lambda: task(batch.images), repeats)
    print(f"suppression of a batch: {1e3 * whole:.1f} ms, the forward pass {1e3 * network:.1f} ms, {ratio:.1%} of it")

    task.train()

    def step() -> None:
        task.loss(task.outputs(batch), batch).backward()

    bare, whole, ratio = alternate(lambda: bare_step(task, batch.images), step, repeats)
    print(f"training step: {1e3 * whole:.1f} ms, bare network {1e3 * bare:.1f} ms: {ratio:.3f} of its speed")


def bare_step(network: Callable[[Tensor], Any], images: Tensor) -> None:
    """Forward and backward."""
    outputs = network(images)
    (outputs.logits.mean() + outputs.offsets.mean()).backward()


def make_loops(cli: TrainingCLI, batches: int) -> dict[str, Loop]:
    """The bare loop with a second network of the same options, on the first batches that `fit` trains on."""
    model, data = cli.model, cli.datamodule
    data.prepare_data()
    data.setup("fit")
    source = data.splits["train"]
    size = data.batch_size
    ready = [
        data.transform(source.__getitems__(range(start, start + size)), training=True).images
        for start in range(0, batches * size, size)
    ]
    net = model.network_factory(data.facts.channels, len(data.facts.class_names)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)

    def epoch() -> None:
        net.train()
        for images in ready:
            optimizer.zero_grad()
            bare_step(net, images)
            optimizer.step()

    return {"bare": epoch}


def measure_fit(root: str, epochs: int, batches: int) -> None:
    """Print the ratio."""
    with tempfile.TemporaryDirectory() as runs:
        options = [
            *("--model", "Detector", "--model.net", "TinySSD", "--model.channels_last", "true"),
            *("--model.optimizer", "SGD", "--model.optimizer.lr", "0.01"),
            *("--data", "BananaDetection", "--data.root", root, "--data.batch_size", str(BATCH_SIZE)),
            *("--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", str(batches)),
            *("--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false", "--runs", runs),
        ]
        result = fit_beside(options, lambda cli: make_loops(cli, batches))
    result.report(batches * BATCH_SIZE)


def main() -> None:
    """Parse the command line and print the ratios."""
    folders = data_folders("banana-detection")
    root = next((folder for folder in folders if folder.is_dir()), folders[0])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=("parts", "fit"), default="parts")
    parser.add_argument("--repeats", type=int, default=7, help="of each part, after one to warm up")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--root", default=str(root), help="the folder of BananaDetection; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of `fit`; the first only warms up")
    parser.add_argument("--batches", type=int, default=8, help=f"batches of {BATCH_SIZE} in an epoch of `fit`")
    chosen = parser.parse_args()
    keep_freed_memory()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    print(f"batch {BATCH_SIZE}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if chosen.case == "parts":
        measure_parts(chosen.repeats)
    else:
        measure_fit(chosen.root, chosen.epochs, chosen.batches)


if __name__ == "__main__":
    main()
