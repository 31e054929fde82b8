"""The platform's conformance kit on the network, and what is true of it alone."""

import pytest
import torch
from leyden.testing import check_network

from new_network.network import NewNetwork


def test_network() -> None:
    check_network(NewNetwork)


@pytest.mark.parametrize("side", [28, 33, 64])
def test_pictures_of_any_size(side: int) -> None:
    assert NewNetwork(3, 5)(torch.zeros(2, 3, side, side)).shape == (2, 5)


def count_weights(channels: int) -> int:
    return sum(weight.numel() for weight in NewNetwork(1, 10, channels).parameters())


def test_more_channels_make_it_larger() -> None:
    assert count_weights(channels=4) < count_weights(channels=8)


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="channels is 0"):
        NewNetwork(1, 10, channels=0)
