"""The real CamVid, and a few real pictures of Pascal VOC, from where LEYDEN_DATA says."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from leyden.batches import VOID, SegmentationFacts
from leyden_datamodules._masks import voc_palette
from leyden_datamodules._voc import VOC_CLASSES
from leyden_datamodules.voc_segmentation import VOCSegmentation

DATA = Path(os.environ.get("LEYDEN_DATA", "data"))
CAMVID, DEVKIT = DATA / "CamVid", DATA / "VOCdevkit"

needs_camvid = pytest.mark.skipif(not CAMVID.is_dir(), reason="LEYDEN_DATA holds no CamVid")
needs_voc = pytest.mark.skipif(not (DEVKIT / "VOC2012").is_dir(), reason="LEYDEN_DATA holds no VOCdevkit")

# SegNet's names and colours; share of each class, then of void, in the pixels of each split, in percent
CAMVID_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "signsymbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID_SHARES = {
    "train": [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95],
    "val": [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22, 1.70],
    "test": [17.07, 24.61, 1.18, 25.81, 9.27, 11.25, 1.01, 1.18, 3.97, 0.63, 0.19, 3.83],
}
# images that are lower than 320 pixels, or narrower than 480
SMALL = {"2007_000032", "2008_002536", "2010_005582"}


def names(source: Any) -> set[str]:
    return {Path(name).stem for name in source.inputs}


@needs_camvid
def test_camvid() -> None:
    data = VOCSegmentation(root=str(CAMVID), batch_size=16)
    started = time.process_time()
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert time.process_time() - started < 20  # of processor time, all 701 decoded; 3 s on an idle core
    assert data.facts == SegmentationFacts(3, tuple(CAMVID_COLOURS), tuple(CAMVID_COLOURS.values()))
    assert {split: len(source) for split, source in data.splits.items()} == {"train": 367, "val": 101, "test": 233}
    sources: dict[str, Any] = dict(data.splits)
    assert len(set.union(*(names(source) for source in sources.values()))) == 701
    for split, source in sources.items():
        counts = sum(source.pixels(index)[3].flatten().bincount(minlength=256) for index in range(len(source)))
        shares = 100 * counts / counts.sum()
        assert counts[11:VOID].sum() == 0
        found = [*shares[:11].tolist(), shares[VOID].item()]
        assert found == pytest.approx(CAMVID_SHARES[split], abs=0.006)
    batch = sources["val"].__getitems__([0, 50])
    assert batch.images.shape == (2, 3, 360, 480)
    crops = next(iter(data.train_dataloader()))
    assert crops.images.shape == (16, 3, 320, 480)
    assert crops.masks.shape == (16, 320, 480)


@needs_camvid
def test_camvid_crops_cost_little() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = VOCSegmentation(root=str(CAMVID), scale_jitter=(0.5, 2.0), colour_jitter=0.3)
    source: Any = data.load("train")
    source.__getitems__(range(16))
    started = time.process_time()
    for start in range(0, 160, 16):
        source.__getitems__(range(start, start + 16))
    seconds = (time.process_time() - started) / 160
    torch.set_num_threads(threads)
    assert seconds < 0.012  # of processor time for each; 2 to 3 ms on an idle core


@needs_voc
def test_pascal_voc() -> None:
    data = VOCSegmentation(root=str(DEVKIT), fold="all")
    data.setup("fit")
    data.setup("test")
    assert data.facts == SegmentationFacts(3, VOC_CLASSES, voc_palette(21))
    train, test = data.splits["train"], data.splits["test"]
    assert (len(train), len(test)) == (10, 4)
    assert len(names(train) | names(test)) == 14
    batch = test.__getitems__(range(4))
    present = set(batch.masks.unique().tolist())
    assert present <= {*range(21), VOID}
    for index, (height, width) in enumerate(batch.sizes.tolist()):
        assert test.picture(index).size == (width, height)  # type: ignore[attr-defined]
    small = VOCSegmentation(root=str(DEVKIT), fold="all", drop_small=True)
    small.setup("fit")
    assert len(small.splits["train"]) == 8
    assert names(train) - names(small.splits["train"]) == names(train) & SMALL


@needs_voc
def test_the_masks_palette_is_vocs() -> None:
    for path in sorted((DEVKIT / "VOC2012" / "SegmentationClass").glob("*.png")):
        with Image.open(path) as mask:
            colours = mask.getpalette("RGB") or []
        assert tuple(zip(colours[::3], colours[1::3], colours[2::3], strict=True))[:21] == voc_palette(21)
