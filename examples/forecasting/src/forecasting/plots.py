"""Pictures of series and forecasts: small ones by hand, since there are many; figures by matplotlib."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 360, 160, 8  # pixels
KNOWN, TRUE, FORECAST = "#1f77b4", "#6baed6", "#d62728"


def chart(history: Sequence[float], forecast: Sequence[float] = (), future: Sequence[float] = ()) -> Image.Image:
    """A line for what was known, and behind it one for the forecast and one for what came; WIDTH x HEIGHT pixels."""
    values = [*history, *forecast, *future]
    low, high = min(values), max(values)
    rows = len(history) + max(len(forecast), len(future))
    step, scale = WIDTH / max(1, rows - 1), (HEIGHT - 2 * MARGIN) / ((high - low) or 1)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    behind = len(history) - 1
    for start, line, colour in (
        (0, history, KNOWN),
        (behind, [history[-1], *future], TRUE),
        (behind, [history[-1], *forecast], FORECAST),
    ):
        points = [(step * (start + k), HEIGHT - MARGIN - scale * (value - low)) for k, value in enumerate(line)]
        draw.line(points, fill=colour, width=2)
    return canvas


def errors_by_step(errors: Sequence[float]) -> Figure:
    """The mean absolute error of each step ahead."""
    figure = Figure(figsize=(6, 3.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(1, len(errors) + 1), errors, color=KNOWN)
    axes.set_xlabel("rows ahead")
    axes.set_ylabel("mean absolute error")
    axes.grid(alpha=0.3, axis="y")
    return figure
