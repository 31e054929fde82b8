"""The smallest picture that a network takes, against trying every size; dry runs."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leyden.networks import LARGEST_SIZE_TRIED, dry_run, smallest_image_size
from leyden_plugins.classification.networks.lenet import LeNet
from leyden_plugins.classification.networks.nin import NiN


class Refusing(nn.Module):
    """Like a vision transformer, takes pictures from a size on and says so in its own way."""

    def __init__(self, smallest: int, error: type[Exception]) -> None:
        super().__init__()
        self.smallest = smallest
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] < self.smallest:
            raise self.error("too small")
        return images


def by_trying(build: Callable[[], nn.Module], channels: int, above: int) -> int:
    for size in range(above + 1, 100):
        try:
            with torch.no_grad():
                build().eval()(torch.zeros(1, channels, size, size))
        except RuntimeError:
            continue
        return size
    raise AssertionError("no size works")


@given(
    layers=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2), st.booleans()), min_size=1, max_size=2),
    above=st.integers(1, 6),
)
@settings(max_examples=40, deadline=None)
def test_stacks_of_convolutions_and_pooling(layers: list[tuple[int, int, bool]], above: int) -> None:
    def build() -> nn.Module:
        parts: list[nn.Module] = []
        for kernel, stride, pooled in layers:
            parts += [nn.Conv2d(1, 1, kernel, stride), *([nn.MaxPool2d(2)] if pooled else [])]
        return nn.Sequential(*parts)

    assert smallest_image_size(build, 1, above) == by_trying(build, 1, above)


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: LeNet(1, 10), 1),
        (lambda: NiN(3, 10), 3),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 7), nn.Flatten(), nn.LazyLinear(2)), 1),  # keeps the first size it sees
    ],
)
def test_networks(build: Callable[[], nn.Module], channels: int) -> None:
    assert smallest_image_size(build, channels, above=5) == by_trying(build, channels, above=5)


@pytest.mark.parametrize("error", [AssertionError, ValueError, RuntimeError])
@pytest.mark.parametrize("smallest", [9, 16, 17, 224, LARGEST_SIZE_TRIED])
def test_networks_that_refuse_in_their_own_way(smallest: int, error: type[Exception]) -> None:
    assert smallest_image_size(lambda: Refusing(smallest, error), 1, above=8) == smallest


def test_none_works() -> None:
    assert smallest_image_size(lambda: Refusing(10**6, RuntimeError), 1, above=8) is None
    assert smallest_image_size(lambda: nn.Conv2d(3, 1, 1), 1, above=8) is None


def test_a_bug_in_a_network_is_not_taken_for_a_size() -> None:
    with pytest.raises(KeyError):
        smallest_image_size(lambda: Refusing(10, KeyError), 1, above=8)


@pytest.mark.parametrize("training", [True, False])
def test_a_dry_run_changes_nothing_but_lazy_sizes(training: bool) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2)).train(training)
    images = torch.randn(4, 1, 3, 3)

    outputs = dry_run(net, images)

    assert outputs.shape == (4, 2)
    assert not outputs.requires_grad
    assert net.training is training
    assert all(module.training is training for module in net.modules())
    assert torch.equal(net[0].running_mean, torch.zeros(1))
    assert not isinstance(net[3], nn.LazyLinear)
    assert torch.equal(dry_run(net, images), outputs), "nothing is dropped"


def test_a_failed_dry_run_leaves_the_mode_as_it_was() -> None:
    net = nn.Conv2d(3, 1, 1).train()
    with pytest.raises(RuntimeError):
        dry_run(net, torch.zeros(1, 1, 4, 4))
    assert net.training
