"""Toy pictures: discs, frames and stripes. They stand in until the data is yours, and serve the tests."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("disc", "frame", "stripes")
SIDE = 32  # pixels


def write_table(root: Path, count: int, seed: int = 0) -> None:
    """Write `count` pictures of each kind, root/<number>.png, and their table root/labels.csv."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count * len(KINDS)):
        kind, name = KINDS[number % len(KINDS)], f"{number:03d}.png"
        make_picture(kind, generator).save(root / name)
        rows.append((name, kind))
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])


def make_picture(kind: str, generator: np.random.Generator) -> Image.Image:
    """A shape of random place, size and colour in noise: RGB, SIDE x SIDE."""
    picture = Image.fromarray(generator.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    red, green, blue = generator.integers(110, 256, 3).tolist()
    left, top = generator.integers(0, SIDE // 2, 2).tolist()
    size = int(generator.integers(SIDE // 3, SIDE // 2))
    box = (left, top, left + size, top + size)
    if kind == "disc":
        draw.ellipse(box, fill=(red, green, blue))
    elif kind == "frame":
        draw.rectangle(box, outline=(red, green, blue), width=2)
    else:
        for x in range(left, left + size, 4):
            draw.line((x, top, x, top + size), fill=(red, green, blue), width=2)
    return picture
