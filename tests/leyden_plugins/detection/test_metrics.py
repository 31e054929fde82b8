"""Mean average precision against cases worked out by hand, COCO's evaluation in plain Python, and torchmetrics."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.detection import MeanAveragePrecision

from leyden_plugins.detection.metrics import AnchorErrors, AveragePrecision

NAMES = ("cat", "potted plant", "eel")
Box = tuple[float, float, float, float]


class Seen(NamedTuple):
    """An image: the things that were found, (box, score, label), and those that are there, (box, label, difficult)."""

    found: Sequence[tuple[Box, float, int]]
    true: Sequence[tuple[Box, int, bool]]


def batch_of(images: Sequence[Seen]) -> tuple[Tensor, ...]:
    """What the metrics of the family are updated with."""
    found = [(*box, score, label) for image in images for box, score, label in image.found]
    true = [(*box, label, difficult) for image in images for box, label, difficult in image.true]
    counts = (torch.tensor([len(each) for each in kind]) for kind in zip(*images, strict=True))
    found_counts, true_counts = counts
    errors = torch.zeros(len(images), 2)
    things = (torch.tensor(each, dtype=torch.float32).view(-1, 6) for each in (found, true))
    return errors, next(things), found_counts, next(things), true_counts


def scores_of(images: Sequence[Seen], batch_size: int = 100, most: int = 100) -> dict[str, Tensor]:
    metric = AveragePrecision(NAMES, most, detailed=True)
    for start in range(0, len(images), batch_size):
        metric.update(*batch_of(images[start : start + batch_size]))
    return metric.compute()


THING, OTHER, FAR = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0), (400.0, 400.0, 420.0, 420.0)
MOSTLY = (0.0, 0.0, 100.0, 62.0)  # an IoU of .62 with THING: right at .5, .55 and .6
HALF = 51 / 101  # a precision of 1 at recall 0, .01, ..., .5, and 0 beyond

CASES: dict[str, tuple[list[Seen], tuple[float, float, float]]] = {
    "all found": ([Seen([(THING, 0.9, 0), (OTHER, 0.3, 1)], [(THING, 0, False), (OTHER, 1, False)])], (1, 1, 1)),
    "all elsewhere": ([Seen([(FAR, 0.9, 0), (FAR, 0.8, 1)], [(THING, 0, False), (OTHER, 1, False)])], (0, 0, 0)),
    "nothing found": ([Seen([], [(THING, 0, False)]), Seen([], [])], (0, 0, 0)),
    "another class": ([Seen([(THING, 0.9, 1)], [(THING, 0, False)])], (0, 0, 0)),
    "one of two classes": ([Seen([(THING, 0.9, 0)], [(THING, 0, False), (OTHER, 1, False)])], (0.5, 0.5, 0.5)),
    "half found": ([Seen([(THING, 0.9, 0)], [(THING, 0, False), (OTHER, 0, False)])], (HALF, HALF, HALF)),
    "a loose box": ([Seen([(MOSTLY, 0.9, 0)], [(THING, 0, False)])], (0.3, 1, 0)),
    "twice, after all was found": ([Seen([(THING, 0.9, 0), (THING, 0.8, 0)], [(THING, 0, False)])], (1, 1, 1)),
    "twice, before the other was found": (
        [Seen([(THING, 0.9, 0), (THING, 0.8, 0), (OTHER, 0.7, 0)], [(THING, 0, False), (OTHER, 0, False)])],
        (*[(51 + 50 * 2 / 3) / 101] * 3,),
    ),
    "the worse box first": (
        [Seen([(FAR, 0.9, 0), (THING, 0.8, 0)], [(THING, 0, False)])],
        (0.5, 0.5, 0.5),
    ),
    "in an image without things, more certain": (
        [Seen([(THING, 0.5, 0)], [(THING, 0, False)]), Seen([(THING, 0.9, 0)], [])],
        (0.5, 0.5, 0.5),
    ),
    "in an image without things, less certain": (
        [Seen([(THING, 0.9, 0)], [(THING, 0, False)]), Seen([(THING, 0.5, 0)], [])],
        (1, 1, 1),
    ),
    "a difficult one found": (
        [Seen([(THING, 0.9, 0), (OTHER, 0.8, 0)], [(THING, 0, True), (OTHER, 0, False)])],
        (1, 1, 1),
    ),
    "a difficult one not found": ([Seen([(OTHER, 0.8, 0)], [(THING, 0, True), (OTHER, 0, False)])], (1, 1, 1)),
    "a difficult one is no excuse for a box elsewhere": (
        [Seen([(FAR, 0.9, 0), (OTHER, 0.8, 0)], [(THING, 0, True), (OTHER, 0, False)])],
        (0.5, 0.5, 0.5),
    ),
    "a small difficult one found": (
        [Seen([(FAR, 0.9, 0), (OTHER, 0.8, 0)], [(FAR, 0, True), (OTHER, 0, False)])],
        (1, 1, 1),
    ),
    "difficult ones only": ([Seen([(THING, 0.9, 0)], [(THING, 0, True)])], (math.nan,) * 3),
    "found where nothing is": ([Seen([(THING, 0.9, 0)], []), Seen([], [])], (math.nan,) * 3),
    "nothing anywhere": ([Seen([], []), Seen([], [])], (math.nan,) * 3),
    "a class found that is nowhere": (
        [Seen([(THING, 0.9, 0), (OTHER, 0.95, 2)], [(THING, 0, False)])],
        (1, 1, 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_worked_out_by_hand(name: str) -> None:
    images, expected = CASES[name]
    found = scores_of(images)
    assert [found[each].item() for each in ("map", "map_50", "map_75")] == pytest.approx(
        expected, abs=1e-6, nan_ok=True
    )


def test_classes_that_occur_have_scores_and_curves_of_their_own() -> None:
    images = [
        Seen([(MOSTLY, 0.9, 2), (THING, 0.8, 1)], [(THING, 2, False)]),
        Seen([(THING, 0.9, 0)], [(THING, 0, False), (OTHER, 0, False)]),
    ]
    found = scores_of(images)
    curves = found.pop("precision_at_recall")
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"map": (0.3 + HALF) / 2, "map_50": (1 + HALF) / 2, "map_75": HALF / 2}
        | {"ap_cat": HALF, "ap50_cat": HALF, "ap_eel": 0.3, "ap50_eel": 1}
    )
    expected = torch.stack((torch.arange(101) <= 50, torch.zeros(101), torch.ones(101)))
    expected[1] = math.nan
    torch.testing.assert_close(curves, expected.float(), equal_nan=True)


def test_validation_has_the_means_only() -> None:
    metric = AveragePrecision(NAMES, 100)
    metric.update(*batch_of(CASES["all found"][0]))
    assert set(metric.compute()) == {"map", "map_50", "map_75"}


def random_images(seed: int, count: int) -> list[Seen]:
    """Things that are found more or less well, once, twice or not at all, and some that are not there."""
    generator = np.random.default_rng(seed)

    def box(left: float, top: float, width: float, height: float) -> Box:
        corners = np.array([left, top, left + width, top + height], dtype=np.float32)
        return (*corners.tolist(),)

    def shifted(corners: Box) -> Box:
        left, top, right, bottom = corners
        moved = generator.normal(0, 0.1, 2) * (right - left, bottom - top)
        return box(left + moved[0], top + moved[1], (right - left) * generator.uniform(0.8, 1.2), bottom - top)

    images = []
    for _ in range(count):
        found, true = [], []
        for _ in range(generator.integers(0, 6)):
            corners, label = (
                box(*generator.uniform(0, 200, 2), *generator.uniform(5, 60, 2)),
                int(generator.integers(3)),
            )
            true.append((corners, label, bool(generator.random() < 0.2)))
            for _ in range(generator.integers(0, 3)):
                said = label if generator.random() < 0.8 else int(generator.integers(3))
                found.append((shifted(corners), np.float32(generator.random()).item(), said))
        for _ in range(generator.integers(0, 3)):
            corners = box(*generator.uniform(0, 200, 2), *generator.uniform(5, 60, 2))
            found.append((corners, np.float32(generator.random()).item(), int(generator.integers(3))))
        images.append(Seen(found, true))
    return images


def plain_iou(one: Box, other: Box) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return across * down / (areas - across * down)


def plain_average_precision(images: Sequence[Seen], label: int, threshold: float) -> float:
    """Of one class: COCO's matching, in which things that are difficult are the last choice and then do not count."""
    judged, wanted = [], 0
    for image in images:
        true = [(box, difficult) for box, other, difficult in image.true if other == label]
        wanted += sum(not difficult for _, difficult in true)
        free = set(range(len(true)))
        for box, score, _ in sorted((each for each in image.found if each[2] == label), key=lambda each: -each[1]):
            near = [place for place in free if plain_iou(box, true[place][0]) >= threshold]
            if not near:
                judged.append((score, False))
                continue
            place = min(near, key=lambda place: (true[place][1], -plain_iou(box, true[place][0])))
            free.remove(place)
            if not true[place][1]:
                judged.append((score, True))
    if not wanted:
        return math.nan
    points, right = [], 0
    for number, (_, is_right) in enumerate(sorted(judged, reverse=True), start=1):
        right += is_right
        points.append((right / wanted, right / number))
    total = 0.0
    for step in range(101):
        total += max((precision for recall, precision in points if recall >= step / 100 - 1e-12), default=0.0)
    return total / 101


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_plain_python(seed: int) -> None:
    images = random_images(seed, 12)
    found = scores_of(images)
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    table = np.array([[plain_average_precision(images, label, each) for label in range(3)] for each in thresholds])
    means = np.nanmean(table, axis=1)
    expected = {"map": means.mean(), "map_50": means[0], "map_75": means[5]}
    for label, name in enumerate(("cat", "potted_plant", "eel")):
        expected |= {f"ap_{name}": table[:, label].mean(), f"ap50_{name}": table[0, label]}
    found.pop("precision_at_recall")
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_scores_are_those_of_torchmetrics(seed: int) -> None:
    images = [Seen(image.found, [each for each in image.true if not each[2]]) for image in random_images(seed, 12)]
    reference = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    for image in images:
        found = torch.tensor([[*box, score, label] for box, score, label in image.found]).view(-1, 6)
        true = torch.tensor([[*box, label] for box, label, _ in image.true]).view(-1, 5)
        said = {"boxes": found[:, :4], "scores": found[:, 4], "labels": found[:, 5].long()}
        reference.update([said], [{"boxes": true[:, :4], "labels": true[:, 4].long()}])
    expected, scores = reference.compute(), scores_of(images)
    for name in ("map", "map_50", "map_75"):
        assert scores[name].item() == pytest.approx(expected[name].item(), abs=1e-6)
    own = [scores[f"ap_{name}"].item() for name in ("cat", "potted_plant", "eel")]
    assert own == pytest.approx(expected["map_per_class"].tolist(), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_how_images_are_cut_into_batches_does_not_matter(batch_size: int) -> None:
    images = [Seen([], []), *random_images(3, 9), Seen([], [(THING, 1, False)])]
    found, expected = scores_of(images, batch_size), scores_of(images)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, equal_nan=True)


@pytest.mark.parametrize("most", [1, 5, 10, 100, 300])
def test_any_number_of_things_may_be_found(most: int) -> None:
    things: list[tuple[Box, int, bool]] = [((20.0 * x, 0.0, 20.0 * x + 15, 15.0), 0, False) for x in range(most)]
    found = [(box, 0.9 - 0.001 * place, 0) for place, (box, _, _) in enumerate(things)]
    assert scores_of([Seen(found, things)], most=most)["map"].item() == pytest.approx(1)


def test_the_metric_can_be_used_again_after_a_reset() -> None:
    metric = AveragePrecision(NAMES, 100)
    for name in ("all found", "all elsewhere", "half found"):
        images, expected = CASES[name]
        metric.update(*batch_of(images))
        assert metric.compute()["map"].item() == pytest.approx(expected[0])
        metric.reset()


def test_errors_are_means_over_images() -> None:
    metric = AnchorErrors()
    metric.update(torch.tensor([[0.5, 1.0]]), torch.zeros(3, 6))
    metric.update(torch.tensor([[0.25, 0.0], [0.0, 2.0], [0.25, 0.0]]))
    found = metric.compute()
    assert {name: value.item() for name, value in found.items()} == {"class_error": 0.25, "box_mae": 0.75}


def test_errors_of_no_images() -> None:
    metric = AnchorErrors()
    metric.update(torch.zeros(0, 2))
    assert all(value.isnan() for value in metric.compute().values())


def test_both_share_a_collection() -> None:
    images = CASES["half found"][0]
    collection = MetricCollection({"errors": AnchorErrors(), "precision": AveragePrecision(NAMES, 100)})
    _, *things = batch_of(images)
    collection.update(torch.tensor([[0.5, 0.25]]), *things)
    found: dict[str, Any] = collection.compute()
    assert set(found) == {"class_error", "box_mae", "map", "map_50", "map_75"}
    assert found["class_error"].item() == 0.5
    assert found["map"].item() == pytest.approx(HALF)


SCRIPT = """
import json, sys
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from leyden_plugins.detection.metrics import AnchorErrors, AveragePrecision

def work(rank, folder, cases):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for batches in cases:
        metrics = [AnchorErrors(), AveragePrecision(("cat", "potted plant", "eel"), 100, detailed=True)]
        for batch in batches[rank]:
            for metric in metrics:
                metric.update(*torch.load(f"{folder}/{batch}.pt"))
        scores = {name: value.tolist() for metric in metrics for name, value in metric.compute().items()}
        found.append(scores)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    dist.destroy_process_group()

if __name__ == "__main__":
    torch.set_num_threads(1)
    # forked, so that both need not import all anew
    start_processes(work, (sys.argv[1], json.loads(sys.argv[2])), nprocs=2, start_method="fork")
"""


@pytest.mark.timeout(120)
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """With unequal numbers of images and batches, with images without things, and a process that has found nothing."""
    images = [*random_images(7, 9), Seen([], [(THING, 1, False)]), Seen([(THING, 0.7, 1)], [])]
    parts = {"many": images[:6], "some": images[6:9], "missed": images[9:10], "surplus": images[10:]}
    batches = {name: batch_of(part) for name, part in parts.items()}
    for number, batch in enumerate(batches.values()):
        batch[0][:] = torch.rand(batch[0].shape, generator=torch.Generator().manual_seed(number))
    for name, batch in batches.items():
        torch.save(batch, tmp_path / f"{name}.pt")
    cases = [[["many", "missed"], ["some"]], [["missed"], ["many", "some"]], [["surplus"], ["missed"]]]
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, "script.py", str(tmp_path), json.dumps(cases)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for case, *shared in zip(cases, first, second, strict=True):
        expected = {}
        for metric in (AnchorErrors(), AveragePrecision(NAMES, 100, detailed=True)):
            for name in [*case[0], *case[1]]:
                metric.update(*batches[name])
            expected |= metric.compute()
        for found in shared:
            assert set(found) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(torch.tensor(found[name]), value, equal_nan=True)
