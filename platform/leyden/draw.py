"""Pictures for people: captions, grids, learning curves, matrices. Without pyplot, so any thread may draw."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from leyden.folders import replacing

if TYPE_CHECKING:  # curves are drawn by commands that must not wait for torch
    from torch import Tensor

SMALLEST_SIDE = 160  # pixels; smaller pictures are enlarged so that a caption fits and eyes can see them
LARGEST_SIDE = 640  # pixels to which small pictures are enlarged at most, on their long side
GAP = 4  # pixels between pictures
RIGHT, WRONG, NEUTRAL = "#1b7837", "#b2182b", "#404040"
COLOURS = {"train": "tab:blue", "val": "tab:orange"}  # the same in every panel
STAGES = ("train", "val", "test")
LARGEST_LEGEND = 8  # lines; of more, the first, the middle and the last are named
LOGARITHMIC = 10.0  # an overlay's largest value over its lower quartile, from which on the scale is logarithmic
CHARACTERS_PER_INCH = 13.0  # of a legend's text
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

    `series` maps names to (epoch, value) points; `events` marks points in the same way. A name is `stage/metric`, a
    bare name, or `group/line` with a group that is no stage: the lines of a group (`gradient_norm`) share one panel.
    """
    panels: dict[str, dict[str, Points]] = {}
    groups: dict[str, dict[str, Points]] = {}
    for name, points in series.items():
        prefix, slash, rest = name.partition("/")
        if slash and prefix not in STAGES:
            groups.setdefault(prefix, {})[rest] = points
        else:
            panels.setdefault(rest or name, {})[prefix] = points
    count = len(panels) + len(groups)
    columns, rows = min(3, count), -(-count // 3)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=100)
    # by hand: a layout engine lays out all texts twice, and this is drawn after every epoch
    figure.subplots_adjust(0.24 / columns, 0.18 / rows, 1 - 0.06 / columns, 1 - 0.12 / rows, wspace=0.25, hspace=0.45)
    for position, (title, lines) in enumerate([*panels.items(), *groups.items()]):
        axes = figure.add_subplot(rows, columns, position + 1)
        if position < len(panels):
            _draw_stages(axes, lines, (events or {}).get(f"val/{title}"))
        else:
            _draw_group(axes, lines)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    return figure


def _draw_stages(axes: Axes, lines: Mapping[str, Points], best: tuple[float, float] | None) -> None:
    for stage, points in lines.items():
        marker = "o" if len(points) < 30 else None
        axes.plot(*zip(*points, strict=True), label=stage, marker=marker, markersize=3, color=COLOURS.get(stage))
    if best is not None:
        axes.plot(*best, marker="*", markersize=12, color="black", label="best", linestyle="")
    axes.legend(fontsize="small")


def _draw_group(axes: Axes, lines: Mapping[str, Points]) -> None:
    """Lines of one kind, coloured in their order, on a logarithmic scale unless a value is negative."""
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(lines)))
    for (label, points), colour in zip(lines.items(), colours, strict=True):
        marker = "o" if len(points) < 30 else None
        axes.plot(*_over_the_epoch(points), label=label, linewidth=1, marker=marker, markersize=2, color=colour)
    values = np.array([value for points in lines.values() for _, value in points])
    if (values > 0).any() and not (values < 0).any():
        axes.set_yscale("log", nonpositive="mask")
    drawn = axes.get_lines()
    named = drawn if len(drawn) <= LARGEST_LEGEND else [drawn[0], drawn[len(drawn) // 2], drawn[-1]]
    axes.legend(handles=named, fontsize="x-small", loc="upper right")  # to look for the best place takes long


def _over_the_epoch(points: Points) -> tuple[list[float], list[float]]:
    """x and y of points; those of one epoch, which were logged in the course of it, are spread evenly over it."""
    count = Counter(epoch for epoch, _ in points)
    seen: Counter[float] = Counter()
    x = []
    for epoch, _ in points:
        seen[epoch] += 1
        x.append(epoch - 1 + seen[epoch] / count[epoch])
    return x, [value for _, value in points]


def overlay(
    runs: Mapping[str, Mapping[str, Points]],
    best: Mapping[str, tuple[str, float, float]],
    linear: Collection[str] = (),
) -> Figure:
    """Curves of several runs over each other: one panel for each metric, one colour for each run, over epochs.

    `runs` maps a run's label to its series as in `curves`; training is dashed where a panel has more than that. `best`
    maps a label to (name of a series, epoch, value), marked by a star. A panel has a logarithmic scale where its values
    are positive and a quarter of them is below a tenth of the largest; not for the names in `linear`, which are read at
    their upper end, such as an accuracy.
    """
    names = list(dict.fromkeys(name for series in runs.values() for name in series))
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.rpartition("/")[2], []).append(name)
    colours = dict(zip(runs, distinct_colours(len(runs)), strict=True))
    keys = [Line2D([], [], color=colours[label], linewidth=2.5, label=label) for label in runs]
    keys += _line_styles(panels.values(), bool(best))
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    widest_key = max(len(str(key.get_label())) for key in keys) + 7  # characters, with its line and the gap
    width = max(5.0, 4.4 * columns, widest_key / CHARACTERS_PER_INCH)
    across = max(1, min(len(keys), int(CHARACTERS_PER_INCH * width) // widest_key))
    height = 3.2 * rows + 0.2 * -(-len(keys) // across) + 0.1
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    for position, members in enumerate(panels.values(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        for name in members:
            lines = {label: series[name] for label, series in runs.items() if name in series}
            _lines(axes, lines, colours, dashed=len(members) > 1 and name.startswith("train/"))
        for label, (name, epoch, value) in best.items():
            if name in members:
                star = axes.scatter(epoch, value, 110, colours[label], marker="*", zorder=4)
                star.set(edgecolor="black", linewidth=0.8)
        _finish(axes, members, may_be_logarithmic=not set(members) & set(linear))
    figure.legend(handles=keys, loc="outside lower center", ncols=across, fontsize="small", frameon=False)
    return figure


def _lines(axes: Axes, lines: Mapping[str, Points], colours: Mapping[str, str], dashed: bool) -> None:
    """One stage of a metric, of each run. A line that equal ones cover is wider than they are, and so still seen."""
    covering = list(lines.values())
    for label, points in lines.items():
        covering.pop(0)
        width = (1.0 if dashed else 1.6) + min(1.5, 6 / len(lines)) * covering.count(points)
        axes.plot(
            *zip(*points, strict=True),
            label=label,
            color=colours[label],
            linewidth=width,
            linestyle=(0, (4, 2)) if dashed else "-",
            alpha=0.75 if dashed else 1.0,
            marker="o" if len(points) < 30 else None,
            markersize=3,
        )


def _finish(axes: Axes, members: Sequence[str], may_be_logarithmic: bool) -> None:
    """Title, scale and grid of a panel."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    values = np.sort(values[np.isfinite(values)])
    positive = may_be_logarithmic and len(values) and values[0] > 0
    if positive and values[-1] >= LOGARITHMIC * values[(len(values) - 1) // 4]:
        axes.set_yscale("log")
    axes.set_title(members[0] if len(members) == 1 else members[0].rpartition("/")[2], fontsize="medium")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _line_styles(panels: Iterable[Sequence[str]], stars: bool) -> list[Line2D]:
    """What the dashes and the stars mean, for the legend."""
    found = []
    if any(len(names) > 1 and any(name.startswith("train/") for name in names) for names in panels):
        found.append(Line2D([], [], color="black", label="validation"))
        found.append(Line2D([], [], color="black", linestyle="--", label="training"))
    if stars:
        found.append(Line2D([], [], color="black", marker="*", markersize=9, linestyle="", label="best epoch"))
    return found


def distinct_colours(count: int) -> list[str]:
    """Colours that can be told apart: ten strong ones, then their ten pale partners, then a rainbow."""
    paired = [to_hex(colormaps["tab20"](index)) for index in range(20)]
    if count <= len(paired):
        return [*paired[::2], *paired[1::2]][:count]
    return [to_hex(colormaps["turbo"](share)) for share in np.linspace(0.03, 0.97, count)]


def spreads(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """One panel for each metric; in it each name has its values as points beside their mean and standard deviation."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines), dpi=100, layout="constrained")
    for position, (metric, rows) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, position)
        for place, values in enumerate(rows.values()):
            axes.scatter([place - 0.1] * len(values), values, s=16, alpha=0.6, color="tab:blue", linewidths=0)
            axes.errorbar(
                place + 0.1, np.mean(values), np.std(values, ddof=1), fmt="o", color=NEUTRAL, capsize=4, markersize=5
            )
        axes.set_xticks(range(len(rows)), list(rows), rotation=30, ha="right")
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.set_title(metric)
        axes.grid(alpha=0.3, axis="y")
    return figure


def matrix(counts: "Tensor", names: Sequence[str], title: str) -> Figure:
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
