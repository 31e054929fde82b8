"""Large pictures piece by piece: what the network makes of overlapping windows, blended."""

from collections.abc import Callable

import torch
from torch import Tensor


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along a side of `length` pixels.

    The first begins at 0, the last ends at the end, neighbours share at least `overlap` (in [0, 1)) of their `window`
    pixels, and all lie as evenly as whole pixels allow. A side that is no longer than a window has one: [0].
    """
    room = length - window
    if room <= 0:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    steps = -(-room // step)
    return [place * room // steps for place in range(steps + 1)]


def blending_shares(length: int, window: int, overlap: float) -> list[tuple[int, Tensor]]:
    """Each window along a side: where it begins, and its share (w,) float32 in the result of each of its pixels.

    A share falls linearly towards the window's ends, where the network sees least around a pixel; the shares of all
    windows in a pixel add up to 1. w is the window, or a shorter side's length.
    """
    window = min(window, length)
    towards_middle = torch.arange(1, window + 1, dtype=torch.float32)
    weight = torch.minimum(towards_middle, towards_middle.flip(0))
    starts = window_starts(length, window, overlap)
    total = torch.zeros(length)
    for start in starts:
        total[start : start + window] += weight
    return [(start, weight / total[start : start + window]) for start in starts]


def predict_in_windows(net: Callable[[Tensor], Tensor], images: Tensor, window: int, overlap: float) -> Tensor:
    """Run a network on windows of images and blend what it makes of them.

    net: maps (B, C, h, w) to (B, K, h, w), for h and w up to `window`. images: (B, C, H, W). Returns (B, K, H, W)
    float32; beside it only one window's result is held.
    """
    height, width = images.shape[-2:]
    columns = [(left, share.to(images.device)) for left, share in blending_shares(width, window, overlap)]
    blended: Tensor | None = None
    for top, row_share in blending_shares(height, window, overlap):
        rows = slice(top, top + len(row_share))
        share_down = row_share.to(images.device)[:, None]
        for left, share_across in columns:
            place = (..., rows, slice(left, left + len(share_across)))
            found = net(images[place]).float()
            if blended is None:
                blended = found.new_zeros((*found.shape[:2], height, width))
            blended[place].addcmul_(found, share_down * share_across)
    assert blended is not None  # there is always a first window
    return blended
