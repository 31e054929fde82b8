"""Make up a detection data set: python tests/generate_boxes.py FOLDER --layout voc --boxes 5 --classes 3.

Discs, bars and wedges lie on dark, textured grounds and do not overlap. A tenth of the pictures are for the test; in
Pascal VOC's layout another tenth validates.
"""

import argparse
from pathlib import Path

import torch

from leyden_datamodules._shapes import SHAPES
from leyden_datamodules.banana_detection import TEST, TRAIN, write_part
from leyden_datamodules.voc_detection import write_voc

FEWEST = 10  # pictures


def generate(folder: Path, layout: str, pictures: int, boxes: int, classes: int, size: int, seed: int) -> str:
    """Write the data set and return the options that read it.

    layout: `banana` or `voc`. boxes: at most so many in a picture, at least one (in `voc` one picture shows none).
    size: height and width in pixels; a shape's sides are about a quarter of it, less where there may be many.
    """
    generator = torch.Generator().manual_seed(seed)
    side = max(8, size // (4 if boxes <= 4 else 8))
    tenth = pictures // 10
    if layout == "voc":
        splits = {"train": pictures - 2 * tenth, "val": tenth, "test": tenth}
        write_voc(folder, splits, generator, [(size, size)], most=boxes, kinds=classes, side=side)
        return f"--data VOCDetection --data.root {folder} --data.image_size [{size},{size}]"
    for part, count in {TRAIN: pictures - tenth, TEST: tenth}.items():
        write_part(folder / part, count, generator, size, size, boxes, classes, side)
    names = ",".join(SHAPES[:classes])
    options = f"--data.image_size [{size},{size}] --data.classes [{names}] --data.val_size {tenth}"
    return f"--data BananaDetection --data.root {folder} {options}"


def _count(lowest: int, highest: int) -> "type[int]":
    def count(text: str) -> int:
        if not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not from {lowest} to {highest}")
        return int(text)

    return count  # type: ignore[return-value]  # argparse calls it as it would a type


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=("banana", "voc"), default="banana")
    parser.add_argument("--pictures", type=_count(FEWEST, 10**6), default=200)
    parser.add_argument("--boxes", type=_count(1, 50), default=1, help="in a picture, at most")
    parser.add_argument("--classes", type=_count(1, len(SHAPES)), default=1)
    parser.add_argument("--size", type=_count(32, 4096), default=64, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0)
    print(generate(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
