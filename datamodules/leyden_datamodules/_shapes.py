"""Made-up pictures for tests: bright shapes on dark, textured grounds, and where they are."""

from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFilter

SHAPES = ("disc", "bar", "wedge")
COLOURS = ((230, 200, 60), (80, 190, 230), (230, 90, 110))
TRIES = 50  # to lay a shape where no other is


class Shape(NamedTuple):
    """A shape's index in SHAPES and its box: left, top, right, bottom in pixels."""

    kind: int
    box: tuple[int, int, int, int]


def shapes_picture(
    generator: torch.Generator, width: int, height: int, count: int, kinds: int = 1, side: int = 20
) -> tuple[Image.Image, list[Shape]]:
    """A picture with up to `count` shapes of the first `kinds` that do not overlap, sides of about `side` pixels."""
    noise = torch.randint(0, 90, (height // 4 + 1, width // 4 + 1, 3), generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy()).resize((width, height)).filter(ImageFilter.SMOOTH)
    pen, shapes = ImageDraw.Draw(picture), list[Shape]()

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, max(low + 1, high), (), generator=generator))

    for _ in range(count * TRIES):
        if len(shapes) == count:
            break
        across, down = draw(side - side // 4, side + side // 4), draw(side - side // 4, side + side // 4)
        left, top = draw(0, width - across), draw(0, height - down)
        box = (left, top, left + across, top + down)
        if box[2] <= width and box[3] <= height and not any(_overlap(box, other.box) for other in shapes):
            shapes.append(Shape(draw(0, kinds), box))
            _paint(pen, shapes[-1])
    return picture, shapes


def _overlap(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _paint(pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    left, top, right, bottom = shape.box
    inside, colour = (left, top, right - 1, bottom - 1), COLOURS[shape.kind]  # PIL's corners belong to the shape
    if shape.kind == 0:
        pen.ellipse(inside, fill=colour)
    elif shape.kind == 1:
        pen.rectangle(inside, fill=colour)
    else:
        pen.polygon([(left, bottom - 1), (right - 1, bottom - 1), ((left + right) // 2, top)], fill=colour)
