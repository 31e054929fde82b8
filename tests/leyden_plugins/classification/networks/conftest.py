from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def shapes_through() -> Callable[[Iterable[nn.Module], Tensor], list[tuple[int, ...]]]:
    """Runs an image through layers one by one and gives the shape, without the batch, after each."""

    def run(layers: Iterable[nn.Module], x: Tensor) -> list[tuple[int, ...]]:
        shapes = []
        for layer in layers:
            x = layer(x)
            shapes.append(tuple(x.shape[1:]))
        return shapes

    return run
