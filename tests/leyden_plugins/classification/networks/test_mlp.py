import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.classification.networks.mlp import MLP


def test_the_book_s_mlp_has_203530_weights():
    net = MLP(1, 10)
    net(torch.zeros(1, 1, 28, 28))
    assert sum(p.numel() for p in net.parameters()) == 784 * 256 + 256 + 256 * 10 + 10 == 203_530
    assert all(type(layer) is not nn.LazyLinear for layer in net.modules())


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_logits_are_those_of_the_formula(activation):
    net = MLP(2, 3, hidden_sizes=[11, 6], activation=activation)
    x = torch.randn(4, 2, 5, 5)
    net(x)
    w1, b1, w2, b2, w3, b3 = (p.detach().normal_() for p in net.parameters())
    function = getattr(torch, activation)
    hidden = function(function(x.flatten(1) @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(net(x), F.linear(hidden, w3, b3))


def test_all_layers_start_normal_with_zero_biases():
    net = MLP(1, 100, hidden_sizes=[300, 200])
    net(torch.zeros(1, 1, 20, 20))
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(0.01, rel=0.03)
        else:
            assert not parameter.any()


def test_one_dropout_counts_for_every_hidden_layer():
    dropouts = [layer.p for layer in MLP(1, 2, [4, 4, 4], dropout=0.3).modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.3, 0.3, 0.3]


def test_each_hidden_layer_has_its_own_dropout_after_the_activation():
    net = MLP(1, 2, [1000, 1000], activation="sigmoid", dropout=[0.2, 0.5])
    first, second = [index for index, layer in enumerate(net.layers) if isinstance(layer, nn.Dropout)]
    x = torch.zeros(1, 1, 2, 2)
    for index, probability in ((first, 0.2), (second, 0.5)):
        dropped = (net.layers[: index + 1](x) == 0).float().mean().item()
        assert dropped == pytest.approx(probability, abs=0.06)
    assert net.eval().layers[: second + 1](x).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": []}, r"hidden_sizes is \[\], expected one or more numbers of at least 1"),
        ({"hidden_sizes": [256, 0]}, r"hidden_sizes is \[256, 0\], expected one or more numbers"),
        ({"dropout": 1.5}, "dropout is 1.5, expected a probability"),
        ({"dropout": [0.1, 0.2]}, "dropout has 2 entries, expected one number or 1 entries"),
        ({"activation": "gelu"}, "activation is 'gelu', expected one of relu, sigmoid, tanh"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MLP(1, 10, **options)
