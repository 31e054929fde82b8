"""The real bananas and blood cells, and a few annotations of Pascal VOC's pictures, from where LEYDEN_DATA says."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.batches import BoxedImages, DetectionFacts
from leyden.errors import DataError
from leyden_datamodules._voc import VOC_CLASSES
from leyden_datamodules.banana_detection import BananaDetection
from leyden_datamodules.voc_detection import VOCDetection

DATA = Path(os.environ.get("LEYDEN_DATA", "data")).absolute()
BANANAS, CELLS, VOC = DATA / "banana-detection", DATA / "BCCD", DATA / "VOCdevkit" / "VOC2012"

needs_bananas = pytest.mark.skipif(not BANANAS.is_dir(), reason="LEYDEN_DATA holds no banana-detection")
needs_cells = pytest.mark.skipif(not CELLS.is_dir(), reason="LEYDEN_DATA holds no BCCD")
needs_voc = pytest.mark.skipif(not VOC.is_dir(), reason="LEYDEN_DATA holds no VOCdevkit")

CLASSES = ("Platelets", "RBC", "WBC")
# boxes of each class in each split, without the two that have no area
CELL_COUNTS = {"train": (209, 2382 - 1, 214), "val": (83, 968 - 1, 87), "test": (69, 805, 71)}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def everything(source: Any) -> BoxedImages:
    batch: BoxedImages = source.__getitems__(range(len(source)))
    return batch


@needs_bananas
def test_bananas() -> None:
    data = BananaDetection(root=str(BANANAS))
    started = time.process_time()
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert time.process_time() - started < 15  # of processor time, all 1,100 decoded; 1.5 s on an idle core
    assert data.facts == DetectionFacts(3, ("banana",))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 900, "val": 100, "test": 100}
    sources: dict[str, Any] = dict(data.splits)
    assert len({*sources["train"].inputs, *sources["val"].inputs}) == 1000
    widths, heights = [], []
    for name in ("train", "val"):
        batch = everything(sources[name])
        assert batch.images.shape[1:] == (3, 256, 256)
        assert batch.boxes.shape[1:] == (1, 4)
        assert batch.sizes.unique().tolist() == [256]
        assert not batch.labels.any()
        widths += (batch.boxes[..., 2] - batch.boxes[..., 0])[:, 0].tolist()
        heights += (batch.boxes[..., 3] - batch.boxes[..., 1])[:, 0].tolist()
    assert (min(widths), max(widths), min(heights), max(heights)) == (31, 74, 33, 81)


@needs_bananas
def test_bananas_are_where_their_boxes_are() -> None:
    """They are yellow: red and green above blue, more so than what is around them."""
    batch = everything(BananaDetection(root=str(BANANAS), flip=True, vertical_flip=True).load("train"))
    yellow = batch.images[:, :2].float().amin(1) - batch.images[:, 2].float()

    def share(boxes: torch.Tensor) -> float:
        """Of the boxes that are more yellow than their picture; some backgrounds are yellow, too."""
        inside = [
            image[top:bottom, left:right].mean() > image.mean() + 5
            for image, (left, top, right, bottom) in zip(yellow, boxes.int().tolist(), strict=True)
        ]
        return sum(map(float, inside)) / len(inside)

    boxes = batch.boxes[:, 0]
    assert share(boxes) > 0.8
    left, top, right, bottom = boxes.unbind(1)
    assert share(torch.stack((256 - right, top, 256 - left, bottom), dim=1)) < 0.5  # mirrored, and the pictures not


@needs_bananas
def test_a_batch_costs_little() -> None:
    data = BananaDetection(root=str(BANANAS))
    source: Any = data.load("train")
    data.transform(source.__getitems__(range(32)), training=True)
    started = time.process_time()
    for start in range(0, 320, 32):
        data.transform(source.__getitems__(range(start, start + 32)), training=True)
    assert (time.process_time() - started) / 10 < 0.1  # of processor time for 32 pictures; 17 ms on an idle core


@needs_cells
def test_blood_cells() -> None:
    data = VOCDetection(root=str(CELLS), on_error="skip", image_size=(240, 320))
    with pytest.warns(
        UserWarning, match=r"left out 2 boxes that cannot be used\. .*BloodImage_00343\.xml: box \d+ \(RBC"
    ):
        data.setup("fit")
    data.setup("test")
    assert data.facts == DetectionFacts(3, CLASSES)
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 205, "val": 87, "test": 72}
    for name, source in data.splits.items():
        batch = everything(source)
        counts = batch.labels[batch.labels >= 0].bincount()
        assert tuple(counts.tolist()) == CELL_COUNTS[name]
        assert set(map(tuple, batch.original_sizes.tolist())) == {(480, 640)}
        assert set(map(tuple, batch.sizes.tolist())) == {(240, 320)}
        there = batch.labels >= 0
        assert bool((batch.boxes[there][:, 2:] > batch.boxes[there][:, :2]).all())
        assert bool((batch.boxes[there] >= 0).all())
        assert bool((batch.boxes[there] <= torch.tensor([320, 240, 320, 240])).all())


@needs_cells
@pytest.mark.parametrize(("split", "name"), [("train", "BloodImage_00343"), ("val", "BloodImage_00338")])
def test_boxes_of_no_area_are_named(split: Any, name: str) -> None:
    with pytest.raises(
        DataError, match=rf"{name}\.xml: box \d+ \(RBC \d+ \d+ \d+ \d+\) has no area\. --data\.on_error"
    ):
        VOCDetection(root=str(CELLS)).load(split)
    assert len(VOCDetection(root=str(CELLS), cache=0, on_error="clip").load(split)) == len(
        VOCDetection(root=str(CELLS), cache=0, on_error="skip").load(split)
    )


@needs_cells
def test_annotations_are_read_fast() -> None:
    data = VOCDetection(root=str(CELLS), cache=0, on_error="clip")
    started = time.process_time()
    scenes = [data.scene(listed) for split in ("train", "val", "test") for listed in data.listed(split)]
    assert time.process_time() - started < 3  # of processor time; .4 s on an idle core
    assert len(scenes) == 364
    counts = Counter(CLASSES[label] for scene in scenes for label in scene.things.labels.tolist())
    assert counts == {"RBC": 4155, "WBC": 372, "Platelets": 361}


@needs_cells
def test_white_cells_are_where_their_boxes_are() -> None:
    """Their nuclei are the darkest green of a picture; augmented with everything that moves boxes."""
    data = VOCDetection(
        root=str(CELLS), on_error="skip", image_size=(240, 320), vertical_flip=True, iou_crop=True, zoom_out=2.0
    )
    batch = everything(data.load("train"))
    found = total = 0
    for image, boxes, labels in zip(batch.images, batch.boxes, batch.labels, strict=True):
        for left, top, right, bottom in boxes[labels == CLASSES.index("WBC")].int().tolist():
            inside = image[1, top:bottom, left:right].float()
            cells = image[1][image[1] > 0].float()
            if inside.numel() > 100:
                total += 1
                found += bool(inside.quantile(0.1) < cells.mean() - 30)
    assert total > 100
    assert found > 0.9 * total


@needs_voc
def test_annotations_by_labelme(tmp_path: Path) -> None:
    """Fractional coordinates and empty fields, in a folder of Pascal VOC: pixels are counted from 1."""
    names = sorted(path.stem for path in (VOC / "Annotations").glob("*.xml"))
    root = tmp_path / "VOC2012"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).symlink_to(VOC / folder)
    for split in ("train", "val", "test"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    data = VOCDetection(root=str(root), image_size=(375, 500))
    data.setup("test")
    assert data.facts == DetectionFacts(3, VOC_CLASSES[1:])
    batch = everything(data.splits["test"])
    assert names == ["2011_000003", "2011_000006", "2011_000025"]
    found = [[VOC_CLASSES[1:][label] for label in labels if label >= 0] for labels in batch.labels.tolist()]
    assert found == [["person"] * 2, ["person"] * 4, ["bus", "bus", "car"]]
    assert batch.boxes[2, 1].tolist() == [0, 98, 107, 282]
    assert batch.boxes[0, 0].tolist() == pytest.approx([190, 106.369, 313, 329.369], abs=1e-3)
    assert not batch.difficult.any()
