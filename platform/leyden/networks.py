"""What the engine does with a network before training: a dry run, and the smallest picture that it takes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

LARGEST_SIZE_TRIED = 1024


def dry_run(net: nn.Module, *inputs: Tensor) -> Tensor:
    """Run a network once without gradients, in eval mode. Lazy layers get their sizes, bad shapes raise."""
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            outputs: Tensor = net(*inputs)
    finally:
        net.train(was_training)
    return outputs


def smallest_image_size(build: Callable[[], nn.Module], channels: int, above: int) -> int | None:
    """The smallest square image size (pixels) above `above` that a network takes, found by trying; None if none.

    `build` makes the network anew for each try, since lazy layers keep the size of the first.
    """
    low, high = above, above + 1
    while not _takes(build, channels, high):
        if high >= LARGEST_SIZE_TRIED:
            return None
        low, high = high, min(high * 2, LARGEST_SIZE_TRIED)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(build, channels, middle) else (middle, high)
    return high


def _takes(build: Callable[[], nn.Module], channels: int, size: int) -> bool:
    try:
        dry_run(build(), torch.zeros(1, channels, size, size))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True
