import copy
import pickle

import pytest
import torch
from torch import nn

from leyden_plugins.classification.networks._layers import (
    ACTIVATIONS,
    GridAvgPool,
    LazyNormalLinear,
    activation_layer,
    init_xavier,
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_by_name_is_that_function(name):
    x = torch.linspace(-3, 3, 7)
    expected = {"relu": x.clamp(min=0), "sigmoid": 1 / (1 + (-x).exp()), "tanh": x.tanh()}[name]
    torch.testing.assert_close(activation_layer(name)(x.clone()), expected)


def test_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match="activation is 'gelu', expected one of relu, sigmoid, tanh"):
        activation_layer("gelu")


def test_grid_pool_passes_on_a_map_of_its_size():
    x = torch.randn(2, 3, 5, 5)
    assert GridAvgPool(5)(x) is x


def test_grid_pool_averages_larger_and_repeats_smaller_maps():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(GridAvgPool(2)(x), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    torch.testing.assert_close(GridAvgPool(3)(torch.full((1, 2, 1, 1), 7.0)), torch.full((1, 2, 3, 3), 7.0))
    assert GridAvgPool(5)(torch.randn(1, 1, 5, 8)).shape == (1, 1, 5, 5)


def test_lazy_linear_becomes_a_plain_normal_linear_layer():
    layer = LazyNormalLinear(300)
    assert layer(torch.zeros(2, 400)).shape == (2, 300)
    assert type(layer) is nn.Linear
    assert layer.in_features == 400
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert not layer.bias.any()


def test_lazy_linear_is_copied_and_pickled_before_its_first_batch():
    layer = LazyNormalLinear(3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        twin(torch.zeros(1, 5))
        assert twin.weight.shape == (3, 5)
        assert twin.weight.any()
    assert isinstance(layer, LazyNormalLinear), "the copies' first batch is none of the original's"


@pytest.mark.parametrize("dry", [True, False], ids=["after a dry run", "before any batch"])
def test_lazy_linear_loads_weights(dry):
    trained, fresh = LazyNormalLinear(3), LazyNormalLinear(3)
    trained(torch.zeros(1, 5))
    if dry:
        fresh(torch.zeros(1, 5))
    fresh.load_state_dict(trained.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(fresh(x), trained(x))


def test_xavier_bounds_the_weights_and_leaves_biases():
    conv, linear = nn.Conv2d(8, 16, 3), nn.Linear(300, 200)
    biases = [layer.bias.clone() for layer in (conv, linear)]
    init_xavier(nn.Sequential(conv, nn.Sequential(linear)))
    for layer, fans in ((conv, 8 * 9 + 16 * 9), (linear, 500)):
        bound = (6 / fans) ** 0.5
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(torch.equal(layer.bias, bias) for layer, bias in zip((conv, linear), biases, strict=True))
