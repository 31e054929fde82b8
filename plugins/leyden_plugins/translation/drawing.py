"""Which source words each word of a translation looked at."""

import logging
from collections.abc import Iterable, Sequence
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
    with rc_context({"font.family": ["DejaVu Sans", *_fonts_for(chain(source, target))]}):
        return _drawn(weights, source, target, size)


def _fonts_for(texts: Iterable[str]) -> list[str]:
    """A font on this machine that has Chinese characters, where they are needed."""
    if not any(sign >= EAST_ASIAN for text in texts for sign in text):
        return []
    installed = {font.name for font in font_manager.fontManager.ttflist}
    found = [name for name in FONTS if name in installed][:1]
    if not found:
        logger.warning("no font with Chinese characters was found: install one, such as Noto Sans CJK, to see them.")
    return found


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
