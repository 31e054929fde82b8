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
PANEL = (480, 360)  # width and height in pixels of one of several pictures in a row, at most
TINT = 0.6  # of the class's colour in a painted picture, the rest is the picture's own
VOID_COLOUR = (224, 224, 192)
RIGHT, WRONG, NEUTRAL = "#1b7837", "#b2182b", "#404040"
COLOURS = {"train": "tab:blue", "val": "tab:orange"}  # the same in every panel
STAGES = ("train", "val", "test")
LARGEST_LEGEND = 8  # lines; of more, the first, the middle and the last are named
LONG_COUNT = 10000  # the first count that a matrix's cell is too narrow for
LOGARITHMIC = 10.0  # an overlay's largest value over its lower quartile, from which on the scale is logarithmic
CHARACTERS_PER_INCH = 13.0  # of a legend's text
Points = Sequence[tuple[float, float]]
Colour = tuple[int, int, int]  # red, green, blue, 0 to 255


def captioned(picture: Image.Image, caption: str, colour: str = NEUTRAL) -> Image.Image:
    """A picture (any mode and size) above a line of text, as RGB; wide texts are set smaller."""
    picture = enlarged(picture)
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


def enlarged(picture: Image.Image) -> Image.Image:
    """A picture (any mode) as RGB, a small one in whole multiples of its size, so that eyes can see its pixels."""
    scale = max(1, min(round(SMALLEST_SIDE / min(picture.size)), LARGEST_SIDE // max(picture.size)))
    return picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows of `columns`, each at most as wide as the first one and twice as high."""
    width, height = pictures[0].size
    tiles = [picture.convert("RGB") for picture in pictures]
    for tile in tiles:
        tile.thumbnail((width, 2 * height))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    across = min(columns, len(tiles))
    sheet = Image.new("RGB", (across * (width + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)), "white")
    top = GAP
    for row, row_height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (width + GAP), top))
        top += row_height + GAP
    return sheet


def panel(picture: Image.Image) -> Image.Image:
    """A picture (any mode and size) as RGB, shrunk or enlarged so that a few fit beside each other on a screen."""
    picture = picture.convert("RGB")
    picture.thumbnail(PANEL)
    return enlarged(picture)


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures in one row, each below its title."""
    font, title = _font(17), 24  # pixels, of the letters and of the strip that they stand in
    widths = [max(picture.width, int(font.getlength(text)) + 4) for text, picture in panels.items()]
    height = title + max(picture.height for picture in panels.values())
    row = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), height), "white")
    pen, left = ImageDraw.Draw(row), 0
    for (text, picture), width in zip(panels.items(), widths, strict=True):
        pen.text((left + 2, 1), text, fill=NEUTRAL, font=font)
        row.paste(picture, (left, title))
        left += width + GAP
    return row


def mask_image(mask: "Tensor", palette: Sequence[Colour]) -> Image.Image:
    """A mask (H, W) uint8 of class indices as a palette picture, whose pixels are these indices.

    palette: the colour of each class. 255 is shown in the colour that Pascal VOC gives to void.
    """
    picture = Image.fromarray(mask.numpy())
    unused = [(0, 0, 0)] * (255 - len(palette))
    picture.putpalette([part for colour in [*palette, *unused, VOID_COLOUR] for part in colour])
    return picture


def painted(picture: Image.Image, mask: "Tensor", palette: Sequence[Colour]) -> Image.Image:
    """A picture with each pixel tinted in the colour of its class.

    mask: (H, W) uint8 class indices, brought to the picture's size where that differs; an index without a colour is
    left as it is. palette: the colour of each class.
    """
    import torch
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
    from torchvision.utils import draw_segmentation_masks

    pixels = pil_to_tensor(picture.convert("RGB"))
    mask = pil_to_tensor(fitted_mask(Image.fromarray(mask.numpy()), picture))[0]
    present = [index for index, pixels in enumerate(torch.bincount(mask.flatten())[: len(palette)].tolist()) if pixels]
    if not present:
        return picture.convert("RGB")
    areas = torch.stack([mask == index for index in present])
    colours = [palette[index] for index in present]
    tinted: Image.Image = to_pil_image(draw_segmentation_masks(pixels, areas, TINT, colours))
    return tinted


def fitted_mask(mask: Image.Image, picture: Image.Image) -> Image.Image:
    """A mask in the size of a picture; no index is blended with its neighbours."""
    return mask if mask.size == picture.size else mask.resize(picture.size, Image.Resampling.NEAREST)


def boxed(
    picture: Image.Image, boxes: Sequence[Sequence[float]], captions: Sequence[str], colours: Sequence[str]
) -> Image.Image:
    """A picture with a frame for each box and a caption on it; the first boxes are drawn last, above the others.

    boxes: left, top, right, bottom in pixels of the picture. captions, colours: one for each box; a colour as in
    `#1b7837`.
    """
    canvas = enlarged(picture)
    scale = canvas.width / picture.width
    pen = ImageDraw.Draw(canvas)
    line = max(2, min(canvas.size) // 200)
    font = _font(max(11, min(28, min(canvas.size) // 22)))
    for box, caption, colour in reversed(list(zip(boxes, captions, colours, strict=True))):
        left, top, right, bottom = (value * scale for value in box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        if caption:
            height = font.getbbox("Ag")[3] + 2
            left, top = max(0, min(left, canvas.width - font.getlength(caption) - 4)), max(0, top - height)
            pen.rectangle((left, top, left + font.getlength(caption) + 3, top + height), fill=colour)
            pen.text((left + 2, top), caption, fill="white", font=font)
    return canvas


def with_legend(picture: Image.Image, entries: Mapping[str, Colour]) -> Image.Image:
    """A picture above a legend: each text behind a patch of its colour, in as many lines as needed."""
    size = min(32, max(12, picture.width // 30))
    font, line = _font(size), int(1.5 * size)
    widths = {text: int(1.5 * size + font.getlength(text) + size) for text in entries}
    places, left, top = {}, 0, 0
    for text, width in widths.items():
        if left and left + width > picture.width:
            left, top = 0, top + line
        places[text] = (left, top)
        left += width
    height = picture.height + (top + line if entries else 0)
    canvas = Image.new("RGB", (max([picture.width, *widths.values()]), height), "white")
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for text, (left, top) in places.items():
        top += picture.height + size // 4
        pen.rectangle((left, top, left + size, top + size), fill=entries[text], outline=NEUTRAL)
        pen.text((left + int(1.4 * size), top + size // 2), text, fill=NEUTRAL, font=font, anchor="lm")
    return canvas


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
    """A confusion matrix: counts (K, K), rows are true classes, shaded by the share of the row.

    Where a count is too long for its cell all are given in percent of their row, but for those that round to 0.
    """
    values = counts.cpu().numpy()
    share = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    in_percent = values.max() >= LONG_COUNT
    side = max(5.0, 0.55 * len(names) + 2)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted, in percent of the row" if in_percent else "predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    if len(names) <= 30:
        for row, column in np.ndindex(*values.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            text = f"{100 * share[row, column]:.1f}" if in_percent else str(values[row, column])
            text = "" if text == "0.0" else text
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    return figure


def bars(values: Mapping[str, float], title: str, colours: Sequence[Colour]) -> Figure:
    """A bar from 0 to 1 for each name, the largest value on top. colours: one for each name."""
    figure = Figure(figsize=(6, 0.3 * len(values) + 1), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shown = dict(zip(values, colours, strict=True))
    names = sorted(values, key=lambda name: values[name])
    lengths = [values[name] for name in names]
    fills = [tuple(part / 255 for part in shown[name]) for name in names]
    drawn = axes.barh(names, lengths, color=fills, edgecolor=NEUTRAL, linewidth=0.5)
    axes.bar_label(drawn, [f"{length:.3f}" for length in lengths], padding=3, fontsize="small")
    axes.set_xlim(0, 1.1)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_title(title)
    axes.grid(alpha=0.3, axis="x")
    return figure


def lines(series: Mapping[str, Points], title: str, labels: tuple[str, str], limits: tuple[float, float]) -> Figure:
    """A line for each name in one panel, both axes over the same range. labels: of the x and the y axis."""
    figure = Figure(figsize=(6, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for (name, points), colour in zip(series.items(), distinct_colours(len(series)), strict=True):
        axes.plot(*zip(*points, strict=True), label=name, color=colour)
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1], xlim=limits, ylim=limits)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def save(picture: Image.Image | Figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if isinstance(picture, Figure):
            picture.savefig(temporary, format="png")
        else:
            picture.save(temporary, format="PNG")
