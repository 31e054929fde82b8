"""Which source words each word of a translation looked at."""

import logging
from collections.abc import Sequence
from itertools import chain

from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure
from torch import Tensor

logger = logging.getLogger("leyden")
INCHES = 0.32  # of a token
EAST_ASIAN = "\u2e80"  # and what follows in Unicode is mostly Chinese, Japanese and Korean
FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
)


def attention_figure(weights: Tensor, source: Sequence[str], target: Sequence[str]) -> Figure:
    """A grid of attention weights (target tokens, source tokens), the darker the heavier."""
    size = (2.0 + INCHES * len(source), 1.6 + INCHES * len(target))
    fonts = ["DejaVu Sans"]
    if any(sign >= EAST_ASIAN for text in chain(source, target) for sign in text):
        installed = {font.name for font in font_manager.fontManager.ttflist}
        fonts += [name for name in FONTS if name in installed][:1]
        if len(fonts) == 1:
            logger.warning("no font with Chinese characters was found: install one, such as Noto Sans CJK, to see them")
            source, target = ([_boxes(text) for text in texts] for texts in (source, target))
    with rc_context({"font.family": fonts}):
        return _drawn(weights, source, target, size)


def _boxes(text: str) -> str:
    """What cannot be shown becomes boxes."""
    return "".join("\u25a1" if sign >= EAST_ASIAN else sign for sign in text)


def _drawn(weights: Tensor, source: Sequence[str], target: Sequence[str], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), source, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    axes.set_xlabel("source")
    axes.set_ylabel("translation")
    return figure
