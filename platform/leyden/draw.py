"""Pictures for people: captions, grids, learning curves, matrices. Without pyplot, so any thread may draw."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from leyden.folders import replacing

SMALLEST_SIDE = 160  # pixels; smaller pictures are enlarged so that a caption fits and eyes can see them
LARGEST_SIDE = 640  # pixels to which small pictures are enlarged at most, on their long side
GAP = 4  # pixels between pictures
RIGHT, WRONG, NEUTRAL = "#1b7837", "#b2182b", "#404040"
COLOURS = {"train": "tab:blue", "val": "tab:orange"}  # the same in every panel
Points = Sequence[tuple[float, float]]


def captioned(picture: Image.Image, caption: str, colour: str = NEUTRAL) -> Image.Image:
    """A picture (any mode and size) above a line of text, as RGB; wide texts are set smaller."""
    scale = max(1, min(round(SMALLEST_SIDE / min(picture.size)), LARGEST_SIDE // max(picture.size)))
    picture = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    width = max(picture.width, SMALLEST_SIDE)
    font_size = min(48, max(12, width // 14))
    font = _font(font_size)
    text_width = font.getlength(caption)
    if text_width > width - 8:
        font_size = max(8, int(font_size * (width - 8) / text_width))
        font = _font(font_size)
    canvas = Image.new("RGB", (width, picture.height + int(1.6 * font_size)), colour)
    canvas.paste(picture, (0, 0))
    ImageDraw.Draw(canvas).text((4, picture.height + 0.2 * font_size), caption, fill="white", font=font)
    return canvas


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows of `columns`, each fitted into a tile of the first one's size."""
    width, height = pictures[0].size
    step_x, step_y = width + GAP, height + GAP
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (min(columns, len(pictures)) * step_x + GAP, rows * step_y + GAP), "white")
    for position, picture in enumerate(pictures):
        tile = picture.convert("RGB")
        tile.thumbnail((width, height))
        row, column = divmod(position, columns)
        sheet.paste(tile, (GAP + column * step_x, GAP + row * step_y))
    return sheet


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def curves(series: Mapping[str, Points], events: Mapping[str, tuple[float, float]] | None = None) -> Figure:
    """One panel for each metric (`loss` of `train/loss` and `val/loss`), one line for each stage, over epochs.

    `series` maps `stage/metric` (or a bare name) to (epoch, value) points; `events` marks points in the same way.
    """
    panels: dict[str, dict[str, Points]] = {}
    for name, points in series.items():
        stage, _, metric = name.rpartition("/")
        panels.setdefault(metric, {})[stage] = points
    columns, rows = min(3, len(panels)), -(-len(panels) // 3)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=100)
    # by hand: a layout engine lays out all texts twice, and this is drawn after every epoch
    figure.subplots_adjust(0.24 / columns, 0.18 / rows, 1 - 0.06 / columns, 1 - 0.12 / rows, wspace=0.25, hspace=0.45)
    for position, (metric, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        for stage, points in lines.items():
            marker = "o" if len(points) < 30 else None
            colour = COLOURS.get(stage)
            axes.plot(*zip(*points, strict=True), label=stage or metric, marker=marker, markersize=3, color=colour)
        if events and f"val/{metric}" in events:
            axes.plot(*events[f"val/{metric}"], marker="*", markersize=12, color="black", label="best", linestyle="")
        axes.set_title(metric)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def matrix(counts: Tensor, names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: counts (K, K), rows are true classes, shaded by the share of the row."""
    values = counts.cpu().numpy()
    share = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    side = max(5.0, 0.55 * len(names) + 2)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    if len(names) <= 30:
        for row, column in np.ndindex(*values.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(values[row, column]), ha="center", va="center", color=colour, fontsize=7)
    return figure


def save(picture: Image.Image | Figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if isinstance(picture, Figure):
            picture.savefig(temporary, format="png")
        else:
            picture.save(temporary, format="PNG")
